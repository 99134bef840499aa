//! The library in use: checks an image and says what to do first.
//!
//!     cargo run --example library -- oci:examples/images/add-header

use std::process::ExitCode;

use filtergate::{
    CheckOptions,
    image::{NoProgress, Source},
    verdict::{Outcome, Severity},
};

fn main() -> ExitCode {
    let Some(reference) = std::env::args().nth(1) else {
        eprintln!("usage: library IMAGE");
        return ExitCode::from(2);
    };
    let source = match Source::parse(&reference) {
        Ok(source) => source,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::from(3);
        }
    };
    let options = CheckOptions::default();
    let verdict = runtime.block_on(filtergate::check(&source, &reference, &options, &NoProgress));

    println!("{reference}: {}", verdict.outcome.as_str());
    let first = verdict.findings.iter().find(|finding| finding.severity == Severity::Error);
    if let Some(finding) = first {
        // Text from modules and registries is escaped before a terminal sees it.
        println!("{}: {}", finding.rule, filtergate::report::escape::escape(&finding.message));
        if let Some(help) = &finding.help {
            println!("next: {help}");
        }
    }
    match verdict.outcome {
        Outcome::Pass => ExitCode::SUCCESS,
        Outcome::Fail => ExitCode::from(1),
        Outcome::Undecided => ExitCode::from(3),
    }
}
