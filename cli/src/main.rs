//! The `outlive` command.
//!
//! Results go to stdout, logs and hints to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage.

#![warn(clippy::print_stderr)]

mod args;
mod chat;
mod contact;
mod data;
mod demo;
mod files;
mod given;
mod identity;
mod listen;
mod news;
mod output;
mod panics;
mod passphrase;
mod receipts;
mod relay;
mod row;
mod secret;
mod send;
mod sessions;
mod status;
mod trust;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use args::{Args, Command};
use given::WrongUsage;

/// The variable that says what is logged.
const LOG: &str = "OUTLIVE_LOG";

fn main() -> ExitCode {
    let matches = Args::command().get_matches();
    let args = match Args::from_arg_matches(&matches) {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would panic where nobody reads stderr.
        .log_internal_errors(false)
        .with_env_filter(filter())
        .init();
    panics::keep_quiet_of_those_that_are_told();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            output::say(format_args!("the runtime does not start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let json = args.json;
    let result = runtime.block_on(async {
        match args.command {
            Command::Id(of) => data::id(&of, json),
            Command::Relay(of) => relay::run(of, json).await,
            Command::Send(of) => send::run(of, json).await,
            Command::Listen(of) => listen::run(of, json).await,
            Command::SendFile(of) => files::send(of, json).await,
            Command::ReceiveFiles(of) => files::receive(of, json).await,
            Command::Chat(of) => chat::run(of).await,
            Command::Sessions(of) => sessions::run(&of, json).await,
            Command::Passphrase(of) => passphrase::run(of).await,
            Command::Verify(of) => trust::verify(of, json).await,
            Command::Block(of) => trust::block(of, true, json).await,
            Command::Unblock(of) => trust::block(of, false, json).await,
            Command::Contact(of) => contact::run(of, json).await,
            Command::Demo(of) => demo::run(of, json).await,
            Command::DemoPeer(of) => demo::peer(of).await,
        }
    });
    // A read from a terminal that nobody ends must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<WrongUsage>() => {
            wrong_usage(matches.subcommand_name(), &error);
            ExitCode::from(2)
        }
        // Not as it was to end, and nothing that anybody has to be told.
        Err(error) if error.is::<output::Closed>() => ExitCode::FAILURE,
        Err(error) => {
            output::say(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// What is logged: what somebody said, or else warnings.
fn filter() -> EnvFilter {
    const LEVELS: &str = "levels are off, error, warn, info, debug and trace";
    let Some(given) = std::env::var_os(LOG) else {
        return "warn".into();
    };
    let given = given.to_string_lossy();
    let is_meant = |part: &str| {
        part.contains(['=', '['])
            || part.starts_with("outlive")
            || part.parse::<LevelFilter>().is_ok()
    };
    match EnvFilter::try_new(&given) {
        Ok(filter) => {
            for part in given
                .split(',')
                .map(str::trim)
                .filter(|part| !is_meant(part))
            {
                output::say(format_args!(
                    "`{part}` in {LOG} is no level, and taken for the name of a module; {LEVELS}"
                ));
            }
            filter
        }
        Err(error) => {
            output::say(format_args!(
                "{LOG} is not understood ({error}), so warnings are logged; {LEVELS}"
            ));
            "warn".into()
        }
    }
}

/// Says so as clap does, with the usage of the command that was called.
fn wrong_usage(name: Option<&str>, error: &anyhow::Error) {
    let mut all = Args::command();
    all.build();
    let called = name.and_then(|name| all.find_subcommand_mut(name));
    let told = match called {
        Some(called) => called.error(ErrorKind::MissingRequiredArgument, error),
        None => all.error(ErrorKind::MissingRequiredArgument, error),
    };
    // Nobody may read stderr.
    let _ = told.print();
}
