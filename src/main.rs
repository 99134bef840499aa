//! The program: the command line of the library, and nothing else.

use std::io::Write as _;

use filtergate::{
    cli::{self, CliError, exit::Exit},
    vm::spawn_for_guests,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a program exits with whose main thread panics.
const PANICKED: i32 = 101;

fn main() {
    // All of it, so that a check needs no other thread.
    match spawn_for_guests("filtergate", run_and_exit) {
        Ok(thread) => {
            if thread.join().is_err() {
                std::process::exit(PANICKED);
            }
        }
        Err(_) => run_and_exit(),
    }
}

fn run_and_exit() {
    let exit = run().unwrap_or_else(|error| report(&error));
    // What is still in memory is not worth the time that freeing it takes.
    std::process::exit(exit.code().into());
}

fn run() -> anyhow::Result<Exit> {
    Ok(cli::run(std::env::args_os())?)
}

/// Says why there is no result. Where nobody listens, the exit code has to do.
fn report(error: &anyhow::Error) -> Exit {
    match error.downcast_ref::<CliError>() {
        Some(CliError::Arguments(clap)) => {
            let _ = clap.print();
        }
        _ => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
        }
    }
    error.downcast_ref::<CliError>().map_or(Exit::Undecided, CliError::exit)
}
