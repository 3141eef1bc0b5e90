//! A server that the worker starts itself, on its port, with its GPU, and ends with itself.
//!
//! Ollama runs all the time and loads what it is told. llama-server holds one model, which it is
//! started with: so loading is starting it, and unloading is ending it.

mod keeper;
mod process;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shared::llm::{Answer, HeldModel, HeldState, Loads, ServerKind, is_same_model};
use shared::outcome::Cause;
use shared::task::Spec;
use shared::time::Moment;

use self::keeper::{Keeper, Standing, Words};
pub use self::process::Start;
use super::error::classify;
use super::{Address, Again, Cancel, Failure, Limits, Ollama, OpenAi, Options, Server, Sink};

/// From one look at a server that starts to the next.
const LOOK: Duration = Duration::from_millis(20);
/// How long one that starts may take until it answers, before that is said.
const STARTS: Duration = Duration::from_secs(10);
/// llama-server's words for what a model is loaded with.
const WORDS: [(&str, &str); 4] =
    [("num_ctx", "-c"), ("num_gpu", "-ngl"), ("num_thread", "-t"), ("num_batch", "-b")];

/// Which program is started.
#[derive(Clone, Debug)]
pub enum Program {
    /// `ollama serve`.
    Ollama,
    /// `llama-server`, with one of these models (files in GGUF) at a time.
    LlamaServer {
        /// The files, by name.
        models: BTreeMap<String, PathBuf>,
        /// More words for its command line.
        words: Vec<OsString>,
    },
}

/// A server of our own.
#[derive(Debug)]
pub struct Managed {
    program: Program,
    /// Talks to it.
    client: Box<dyn Server>,
    keeper: Keeper,
    /// Which model llama-server is started with.
    chosen: Mutex<Option<(String, Moment)>>,
    limits: Limits,
}

impl Managed {
    /// Ends what an earlier server of this mark left behind, and starts this one: Ollama at once,
    /// llama-server when it is told to load.
    ///
    /// # Errors
    /// When the processes of this machine cannot be looked at, or no thread can be had. A program
    /// that cannot be started is no error here: it is tried again, and [`Server::ping`] says why.
    pub fn start(program: Program, mut start: Start, limits: Limits) -> io::Result<Self> {
        queue::fence::end_server(&start.mark)?;
        let address = Address::local(start.port);
        let (port, key) = (start.port, start.key.take());
        let keeper = Keeper::new(start)?;
        let client: Box<dyn Server> = match &program {
            Program::Ollama => {
                keeper.run(ollama_words(port));
                Box::new(Ollama::new(address, limits))
            }
            Program::LlamaServer { .. } => Box::new(OpenAi::new(address, limits).with_key(key)),
        };
        Ok(Self { program, client, keeper, chosen: Mutex::default(), limits })
    }

    /// The number of its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match self.keeper.standing() {
            Standing::Running { pid } => Some(pid),
            Standing::Resting | Standing::Ended { .. } => None,
        }
    }

    fn chosen(&self) -> MutexGuard<'_, Option<(String, Moment)>> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, doing: &str, why: &str) -> Failure {
        let (cause, again) = classify(None, why);
        Failure {
            cause,
            again,
            message: format!("{}: {doing}: {why}", self.address()),
            refused: None,
        }
    }

    /// Starts llama-server with a model and waits until it answers.
    fn run_with(&self, file: &Path, order: Order<'_>) -> Result<(), Failure> {
        *self.chosen() = Some((order.model.to_owned(), Moment::now()));
        let Program::LlamaServer { words, .. } = &self.program else { return Ok(()) };
        self.keeper.run(llama_words(file, words, &order, self.address()));
        let begun = self.until_ready(&order);
        if begun.is_err() {
            *self.chosen() = None;
            self.keeper.rest();
        }
        begun
    }

    fn until_ready(&self, order: &Order<'_>) -> Result<(), Failure> {
        let doing = format!("loading {}", order.model);
        let start = Instant::now();
        loop {
            match self.keeper.standing() {
                Standing::Ended { why } => return Err(self.failed(&doing, &why)),
                Standing::Resting => return Err(self.failed(&doing, "it was told to unload")),
                Standing::Running { .. } => {}
            }
            match self.client.held() {
                Ok(held) if !held.is_empty() => return Ok(()),
                // No look ends differently where it wants a key that it does not get.
                Err(failure) if failure.again == Again::Never => return Err(failure),
                Ok(_) | Err(_) => {}
            }
            if start.elapsed() > self.limits.load {
                return Err(Failure::silent(&doing, self.limits.load));
            }
            if !order.cancel.pause(LOOK) {
                return Err(Failure::given_up(&format!("{}: {doing}", self.address())));
            }
        }
    }

    fn held_by_llama(&self) -> Vec<HeldModel> {
        let Some((model, since)) = self.chosen().clone() else { return Vec::new() };
        let answers = self.pid().is_some() && self.client.held().is_ok_and(|held| !held.is_empty());
        let state = if answers { HeldState::Unproven } else { HeldState::Loading };
        vec![HeldModel { model, state, since, size: None, vram: None, error: None }]
    }
}

/// What is to be loaded.
struct Order<'a> {
    model: &'a str,
    options: &'a Options,
    cancel: &'a Cancel,
}

/// A model stays until it is told to go, whatever is asked from elsewhere; several servers may
/// share a folder of models; and nothing leaves this machine.
fn ollama_words(port: u16) -> Words {
    let env = [
        ("OLLAMA_HOST", format!("127.0.0.1:{port}")),
        ("OLLAMA_KEEP_ALIVE", "-1".to_owned()),
        ("OLLAMA_NOPRUNE", "1".to_owned()),
        ("OLLAMA_NO_CLOUD", "1".to_owned()),
    ];
    Words { args: vec!["serve".into()], env: env.into() }
}

fn llama_words(file: &Path, more: &[OsString], order: &Order<'_>, address: &str) -> Words {
    let port = address.rsplit(':').next().unwrap_or_default();
    let mut args: Vec<OsString> = vec!["-m".into(), file.into(), "--alias".into()];
    args.extend([order.model, "--host", "127.0.0.1", "--port", port].map(OsString::from));
    for (name, word) in WORDS {
        if let Some(number) = order.options.get(name).filter(|value| value.is_number()) {
            args.extend([word.to_owned(), number.to_string()].map(OsString::from));
        }
    }
    args.extend(more.iter().cloned());
    Words { args, env: Vec::new() }
}

impl Server for Managed {
    fn kind(&self) -> ServerKind {
        self.client.kind()
    }

    fn address(&self) -> &str {
        self.client.address()
    }

    fn loads(&self) -> Loads {
        Loads::OnRequest
    }

    /// One that is not running does not answer, even if another program does at its port.
    fn ping(&self) -> Result<(), Failure> {
        match self.keeper.standing() {
            Standing::Resting => Ok(()),
            Standing::Ended { why } => Err(self.failed("running the server", &why)),
            Standing::Running { .. } => match &self.program {
                Program::Ollama => self.client.ping(),
                // While it loads it may not even listen; `held` says so.
                Program::LlamaServer { .. } => {
                    let is_starting = |held: &HeldModel| held.state == HeldState::Loading;
                    let pinged = self.client.ping();
                    pinged.or_else(|failure| {
                        if self.held_by_llama().iter().any(is_starting) {
                            Ok(())
                        } else {
                            Err(failure)
                        }
                    })
                }
            },
        }
    }

    fn known(&self) -> Result<Vec<String>, Failure> {
        match &self.program {
            Program::Ollama => self.client.known(),
            Program::LlamaServer { models, .. } => Ok(models.keys().cloned().collect()),
        }
    }

    fn held(&self) -> Result<Vec<HeldModel>, Failure> {
        match &self.program {
            Program::Ollama => {
                // Why it does not run says more than that nobody answers.
                self.client.held().map_err(|silence| self.ping().err().unwrap_or(silence))
            }
            Program::LlamaServer { .. } => Ok(self.held_by_llama()),
        }
    }

    fn load(&self, model: &str, options: &Options, cancel: &Cancel) -> Result<(), Failure> {
        match &self.program {
            Program::Ollama => self.client.load(model, options, cancel),
            Program::LlamaServer { models, .. } => {
                let order = Order { model, options, cancel };
                match models.get(model) {
                    Some(file) => self.run_with(file, order),
                    None => {
                        let names: Vec<_> = models.keys().map(String::as_str).collect();
                        Err(Failure {
                            cause: Cause::ModelMissing,
                            again: Again::Never,
                            message: format!(
                                "{}: there is no file for {model}, only for {}",
                                self.address(),
                                names.join(", ")
                            ),
                            refused: None,
                        })
                    }
                }
            }
        }
    }

    fn unload(&self, model: &str, cancel: &Cancel) -> Result<(), Failure> {
        match &self.program {
            Program::Ollama => self.client.unload(model, cancel),
            Program::LlamaServer { .. } => {
                let mut chosen = self.chosen();
                if chosen.as_ref().is_some_and(|(name, _)| is_same_model(name, model)) {
                    *chosen = None;
                    drop(chosen);
                    self.keeper.rest();
                }
                Ok(())
            }
        }
    }

    fn canary(&self, model: &str, patience: Duration) -> Result<Duration, Failure> {
        self.client.canary(model, patience)
    }

    fn ask(&self, spec: &Spec, cancel: &Cancel, sink: &mut dyn Sink) -> Result<Answer, Failure> {
        if let (Program::LlamaServer { .. }, Some(model)) = (&self.program, &spec.model) {
            self.has_chosen(model)?;
        }
        self.client.ask(spec, cancel, sink)
    }

    fn wait_until_up(&self) {
        let (start, nobody) = (Instant::now(), Cancel::default());
        let starts = || matches!(self.keeper.standing(), Standing::Running { .. });
        while starts() && self.ping().is_err() && start.elapsed() < STARTS {
            nobody.pause(LOOK);
        }
    }

    fn restart(&self) -> bool {
        self.keeper.restart();
        true
    }

    fn end(&self) {
        *self.chosen() = None;
        self.keeper.end();
    }
}

impl Managed {
    /// llama-server answers whatever model it is asked for with the one that it has.
    fn has_chosen(&self, model: &str) -> Result<(), Failure> {
        let chosen = self.chosen();
        let name = chosen.as_ref().map(|(name, _)| name.as_str());
        if name.is_some_and(|name| is_same_model(name, model)) {
            return Ok(());
        }
        let holds = name.map_or("none".to_owned(), |name| format!("`{name}`"));
        let message = format!("{}: it holds {holds}, and {model} is asked for", self.address());
        Err(Failure { cause: Cause::ServerError, again: Again::Later, message, refused: None })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_options_of_a_load_become_words_of_the_command_line() {
        let options = json!({"num_ctx": 512, "num_gpu": 99, "temperature": 1, "num_thread": "all"});
        let order = Order {
            model: "tiny",
            options: options.as_object().unwrap(),
            cancel: &Cancel::default(),
        };
        let more = [OsString::from("--embeddings")];
        let words = llama_words(Path::new("/m/tiny.gguf"), &more, &order, "http://127.0.0.1:80");
        let wanted = "-m /m/tiny.gguf --alias tiny --host 127.0.0.1 --port 80 -c 512 -ngl 99 \
                      --embeddings";
        assert_eq!(words.args, wanted.split_whitespace().map(OsString::from).collect::<Vec<_>>());
    }
}
