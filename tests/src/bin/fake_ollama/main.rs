//! A stand-in for Ollama, which no package registry has: it speaks as Ollama 0.33 was seen to, down
//! to the spaces in its errors, and misbehaves on command. The official clients cannot tell.
//!
//! `fake-ollama serve` listens where `$OLLAMA_HOST` says, as `ollama serve` does; port 0 is any
//! free one, and the port is the last word of the line `Listening on …` on stderr. What there is to
//! serve is in the JSON file `$FAKE_OLLAMA`, which is read anew at each request (see [`settings`]).
//! Each loaded model has a process of its own, `fake-ollama runner`, which outlives a killed server
//! as Ollama's do.

mod api;
mod compat;
mod models;
mod say;
mod settings;
mod wire;

use std::io::Write as _;
use std::net::TcpListener;
use std::sync::Arc;
use std::{env, io, process, thread};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::models::Models;

fn main() -> io::Result<()> {
    match env::args().nth(1).as_deref() {
        Some("serve") => serve(),
        Some("runner") => loop {
            thread::park();
        },
        _ => Err(io::Error::other("usage: fake-ollama serve")),
    }
}

fn serve() -> io::Result<()> {
    let host = env::var("OLLAMA_HOST").unwrap_or_else(|_unset| "127.0.0.1:11434".to_owned());
    let host = host.trim_start_matches("http://");
    let listener = TcpListener::bind(host).unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "Error: listen tcp {host}: bind: {error}");
        process::exit(1);
    });
    let models = Arc::new(Models::default());
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let at_the_end = Arc::clone(&models);
    thread::spawn(move || {
        signals.forever().next();
        at_the_end.end_all();
        process::exit(0);
    });
    writeln!(io::stderr(), "Listening on {}", listener.local_addr()?)?;
    for stream in listener.incoming() {
        let models = Arc::clone(&models);
        let stream = stream?;
        // A client that goes away is its own affair.
        thread::spawn(move || wire::serve(stream, |call| api::answer(call, &models)));
    }
    Ok(())
}
