//! Reads GPUs on request, so that a test can change the machine under a program that has it open.
//!
//! Each line on stdin is a question (`list`, `index N`, `uuid U`, `name N`, `memory U PID…`), each
//! line on stdout its answer as JSON. The first line says whether there is anything to ask.

use std::io::{self, BufRead as _, Write as _};

use serde_json::{Value, json};
use shared::gpu::{Gpus, NoGpus, Which};

fn main() -> io::Result<()> {
    let gpus = match Gpus::open(None) {
        Ok(gpus) => gpus,
        Err(error) => return say(&json!({"error": error.to_string(), "kind": kind(&error)})),
    };
    say(&json!("open"))?;
    for line in io::stdin().lock().lines() {
        say(&answer(&gpus, &line?))?;
    }
    Ok(())
}

fn kind(error: &NoGpus) -> &'static str {
    match error {
        NoGpus::NoLibrary { .. } => "no library",
        NoGpus::NoDriver { .. } => "no driver",
        NoGpus::Broken { .. } => "broken",
    }
}

fn answer(gpus: &Gpus, question: &str) -> Value {
    let words: Vec<_> = question.split_whitespace().collect();
    let number = |word: &str| word.parse().expect("a number");
    match &words[..] {
        ["list"] => json!(gpus.list()),
        ["index", index] => json!(gpus.read(Which::Index(number(index)))),
        ["uuid", uuid] => json!(gpus.read(Which::Uuid(uuid))),
        ["name", index] => json!(gpus.uuid_of(number(index))),
        ["memory", uuid, pids @ ..] => {
            let pids = pids.iter().map(|pid| number(pid)).collect();
            json!(gpus.read(Which::Uuid(uuid)).map(|gpu| gpu.memory_of(&pids)))
        }
        [..] => json!({"error": "no such question"}),
    }
}

fn say(answer: &Value) -> io::Result<()> {
    writeln!(io::stdout(), "{answer}")
}
