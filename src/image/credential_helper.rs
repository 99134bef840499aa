//! Docker's credential helpers: programs called `docker-credential-NAME` that are asked by
//! `get` and a host on standard input, and answer in JSON.

use super::credentials::Login;
use super::error::one_line;
use serde::Deserialize;
use std::io::{self, Read, Write as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// As much as is read of what a helper prints.
const MAX_OUTPUT_BYTES: u64 = 64 << 10;
const POLL: Duration = Duration::from_millis(5);
/// The user that stands for: the secret is an identity token.
const IDENTITY: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks a helper for the login of `server`. That it has none is no failure. It may be silent for
/// `patience`: it may ask a cloud, or wait for a person who is not there; then it is killed.
pub(crate) fn ask(helper: &str, server: &str, patience: Duration) -> Result<Option<Login>, String> {
    let mut command = Command::new(format!("docker-credential-{helper}"));
    run(command.arg("get"), server, patience)
}

fn run(command: &mut Command, server: &str, patience: Duration) -> Result<Option<Login>, String> {
    let deadline = Instant::now() + patience;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "is not a program on the path".to_owned(),
            _ => format!("cannot be run: {error}"),
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A host's name fits into the pipe. One that does not read it may answer all the same.
        let _ = stdin.write_all(server.as_bytes());
    }
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
            result => {
                // It is given up in any case.
                let _ = child.kill().and_then(|()| child.wait());
                return Err(match result {
                    Err(error) => format!("cannot be waited for: {error}"),
                    Ok(_) => format!("did not answer within {} s", patience.as_secs_f64()),
                });
            }
        }
    };
    // What it started may still hold the other ends.
    let output = |pipe: &Receiver<Vec<u8>>| {
        let left = deadline.saturating_duration_since(Instant::now());
        pipe.recv_timeout(left.max(POLL)).unwrap_or_default()
    };
    read(status, &output(&stdout), &output(&stderr))
}

/// What comes out of a pipe, on a thread that may be left behind.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What came before an error is worth as much as what came before the end.
            let _ = pipe.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes);
        }
        send.send(bytes)
    });
    receive
}

fn read(status: ExitStatus, stdout: &[u8], stderr: &[u8]) -> Result<Option<Login>, String> {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if !status.success() {
        let said = format!("{} {}", text(stdout), text(stderr));
        return match said.contains("credentials not found") {
            true => Ok(None),
            false => Err(format!("failed ({status}): {}", one_line(&said))),
        };
    }
    // The parser's own message could quote the secret.
    let answer: Answer = serde_json::from_slice(stdout)
        .map_err(|_| "did not answer as credential helpers do".to_owned())?;
    Ok(match (answer.username.as_str(), answer.secret) {
        (IDENTITY, secret) => Some(Login::IdentityToken(secret)),
        ("", secret) if secret.is_empty() => None,
        (_, password) => Some(Login::Password { user: answer.username, password }),
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::{Login, run};
    use std::process::Command;
    use std::time::Duration;

    fn shell(script: &str, patience: Duration) -> Result<Option<Login>, String> {
        run(Command::new("sh").args(["-c", script]), "ghcr.io", patience)
    }

    #[test]
    fn one_that_hangs_is_killed() {
        let error = shell("exec sleep 3600", Duration::from_millis(20)).err().unwrap();
        assert_eq!(error, "did not answer within 0.02 s");
    }

    #[test]
    fn one_without_end_is_not_read_to_its_end() {
        let error = shell("cat >&2; exec yes", Duration::from_millis(200)).err().unwrap();
        assert!(error.contains("SIGPIPE") || error.contains("did not answer"), "{error}");
    }
}
