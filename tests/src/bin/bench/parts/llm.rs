//! What the worker's way to a model server costs: one-token prompts through its client alone, and
//! through a whole worker (from the ring to the last ledger line), beside a bare loop of the same
//! HTTP client that reads the same answers and looks at nothing. Takes a real llama-server, and is
//! left out where there is none.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use queue::dir::signal::doorbell;
use serde_json::{Value, json};
use shared::task::{Class, Spec, parse_spec};
use worker::server::{Address, Cancel, Limits, OpenAi, Server};

use crate::args::Args;
use crate::measure::{self, Pair};
use crate::parts::daemon::{Ends, Place};
use crate::parts::spawn::submit_all;
use crate::report::{Goal, Report, Row};

/// Prompts in a round.
const ROUND: usize = 50;

pub(crate) fn measure(args: &Args, place: &Place, report: &mut Report) {
    let Some(running) = Running::start() else { return };
    let server = OpenAi::new(Address::local(running.port), Limits::default());
    let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
    let spec = prompt();
    let pair = Pair::in_turn(
        args.pick(20, 40),
        || rate(|| ask(&server, &spec)),
        || rate(|| bare(&agent, running.port)),
    );
    let name = "one-token prompts through the client, one after the other";
    report.add(Row::beside(name, &pair, "/s", Goal::Ratio(0.8)));
    whole_worker(args, place, running.port, report);
}

/// What is not in the bare loop: claim, log lines, run log, ledger line.
fn whole_worker(args: &Args, place: &Place, port: u16, report: &mut Report) {
    let pool = place.pool("llm");
    let url = format!("http://127.0.0.1:{port}/v1");
    let words = ["--gpu", "0", "--name", "bench", "--cpu-slots", "0", "--openai-url", &url];
    let _worker = place.start("worker", &pool, &words);
    let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
    let task = json!({ "class": "llm", "model": "tiny", "request": {
        "url": "/v1/completions", "body": request(),
    }});
    let task = task.to_string();
    let mut ends = Ends::default();
    let mut ours = |count: usize| {
        submit_all(&pool, count, &task);
        let run = || {
            doorbell::ring_class(pool.layout(), Class::Llm);
            ends.wait(&pool, count);
        };
        measure::rate(count, measure::timed(run))
    };
    // Warm: the worker has seen that the server has the model.
    ours(10);
    let round = args.pick(100, 1000);
    let pair = Pair::in_turn(
        args.pick(5, 7),
        || ours(round),
        || measure::rate(round, measure::timed(|| (0..round).for_each(|_| bare(&agent, port)))),
    );
    let name = format!("{round} one-token prompts through a worker, one after the other");
    report.add(Row::beside(name, &pair, "/s", Goal::Ratio(0.8)));
    let beyond = 1000.0 / pair.ours - 1000.0 / pair.raw;
    let name = "what a worker adds to a prompt, from claim to ledger line";
    report.add(Row::alone(name, beyond, "ms", Goal::Under(1.0)));
}

/// Calls a second.
fn rate(call: impl Fn()) -> f64 {
    let start = Instant::now();
    (0..ROUND).for_each(|_| call());
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let rate = ROUND as f64 / start.elapsed().as_secs_f64();
    rate
}

fn request() -> Value {
    json!({
        "model": "tiny", "prompt": "hi", "max_tokens": 1, "stream": true,
        "stream_options": {"include_usage": true},
    })
}

fn prompt() -> Spec {
    let request = json!({ "url": "/v1/completions", "body": request() });
    let spec = json!({ "model": "tiny", "request": request });
    parse_spec(spec.to_string().as_bytes()).expect("a good spec")
}

fn ask(server: &OpenAi, spec: &Spec) {
    let answer = server.ask(spec, &Cancel::default(), &mut std::io::sink());
    let answer = answer.expect("an answer");
    assert_eq!(answer.completion_tokens, Some(1));
}

fn bare(agent: &ureq::Agent, port: u16) {
    let body = request().to_string();
    let url = format!("http://127.0.0.1:{port}/v1/completions");
    let send = || agent.post(&url).header("content-type", "application/json").send(&body);
    // llama-server closes a connection after its 100th request; a client may notice too late.
    let sent = send().or_else(|_closed| send());
    let mut answer = Vec::new();
    let mut reader = sent.expect("an answer").into_body().into_reader();
    reader.read_to_end(&mut answer).expect("all of the answer");
    assert!(answer.ends_with(b"[DONE]\n\n"));
}

/// A llama-server that ends with this value.
struct Running {
    child: Child,
    port: u16,
}

impl Running {
    fn start() -> Option<Self> {
        let (program, models) = tests::llama_models()?;
        let port = tests::free_port();
        let child = Command::new(program)
            .arg("-m")
            .arg(models.join("tiny.gguf"))
            .args(["--alias", "tiny", "--port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start llama-server");
        let running = Self { child, port };
        let server = OpenAi::new(Address::local(port), Limits::default());
        let end = Instant::now() + Duration::from_secs(30);
        while server.canary("tiny", Duration::from_secs(30)).is_err() {
            assert!(Instant::now() < end, "llama-server does not answer");
            measure::pause(Duration::from_millis(50));
        }
        Some(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}
