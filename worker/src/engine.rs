//! The worker's model server as it was asked for: found at an address, or started by the worker
//! itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use queue::cli::Failure;
use queue::dir::Pool;
use shared::exit;
use shared::name::Name;
use shared::settings::Settings;

use crate::models::{Models, Patience};
use crate::server::{Address, Limits, Managed, Ollama, OpenAi, Program, Server, Start};

/// The port of the server that a worker starts itself, for GPU 0.
const BASE_PORT: u16 = 11436;

/// Its model server: with one it takes llm tasks too.
#[derive(clap::Args, Debug)]
pub(crate) struct ServerArgs {
    /// The port of its Ollama server on this machine; jobs get it as OLLAMA_HOST
    #[arg(long, value_name = "PORT", visible_alias = "server-port")]
    ollama_port: Option<u16>,
    /// The address of its Ollama server, as http://HOST:PORT; jobs get it as OLLAMA_HOST
    #[arg(long, value_name = "URL", conflicts_with_all = ["ollama_port", "managed"])]
    ollama_url: Option<String>,
    /// The address of a server that speaks OpenAI's protocol (llama-server, llama-swap, vLLM)
    #[arg(long, value_name = "URL", conflicts_with_all = ["ollama_port", "ollama_url", "managed"])]
    openai_url: Option<String>,
    /// Start this server itself, on --ollama-port [default: 11436 and the GPU's number], and end it
    /// with itself: `ollama`, or `llama-server` with more words for its command line
    #[arg(long, value_name = "PROGRAM …")]
    managed: Option<String>,
    /// A model that a llama-server of its own can be started with; may be given several times
    /// [default name: the file's, without its ending]
    #[arg(long, value_name = "[NAME=]FILE", requires = "managed")]
    model_file: Vec<String>,
}

/// A model server, as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Ollama.
    Ollama(Address),
    /// One that speaks OpenAI's protocol.
    OpenAi(Address),
    /// One that the worker starts itself.
    Own(Own),
}

/// A server that the worker starts itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// The program, and more words for its command line.
    pub words: Vec<String>,
    /// Where it listens.
    pub port: u16,
    /// Which models it can be started with, if it is a llama-server; else it is an Ollama.
    pub files: Option<BTreeMap<String, PathBuf>>,
}

impl Engine {
    /// What jobs find in OLLAMA_HOST.
    #[must_use]
    pub fn ollama_host(&self) -> Option<String> {
        match self {
            Self::Ollama(address) => address.as_str().strip_prefix("http://").map(str::to_owned),
            Self::OpenAi(_) | Self::Own(Own { files: Some(_), .. }) => None,
            Self::Own(Own { port, files: None, .. }) => Some(format!("127.0.0.1:{port}")),
        }
    }

    /// The port of an Ollama server.
    #[must_use]
    pub fn ollama_port(&self) -> Option<u16> {
        self.ollama_host()?.rsplit_once(':')?.1.parse().ok()
    }
}

impl ServerArgs {
    /// What the words come to.
    pub(crate) fn engine(self, gpu: Option<u32>) -> Result<Option<Engine>, Failure> {
        let parse = |flag: &str, url: &str| {
            Address::parse(url).map_err(|err| Failure::usage(format!("{flag}: {err}")))
        };
        if let Some(command) = &self.managed {
            return self.own(command, gpu).map(|own| Some(Engine::Own(own)));
        }
        Ok(match (self.ollama_port, self.ollama_url, self.openai_url) {
            (Some(port), ..) => Some(Engine::Ollama(Address::local(port))),
            (_, Some(url), _) => Some(Engine::Ollama(parse("--ollama-url", &url)?)),
            (_, _, Some(url)) => Some(Engine::OpenAi(parse("--openai-url", &url)?)),
            (None, None, None) => None,
        })
    }

    fn own(&self, command: &str, gpu: Option<u32>) -> Result<Own, Failure> {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let Some(program) = words.first() else {
            return Err(Failure::usage("--managed: give a program, as `ollama`"));
        };
        let is_llama = program.contains("llama-server");
        let files: BTreeMap<_, _> = self.model_file.iter().map(|given| named(given)).collect();
        if is_llama && files.is_empty() {
            return Err(Failure::usage("--managed llama-server needs a --model-file"));
        }
        if !is_llama && (!files.is_empty() || words.len() > 1) {
            let text = "--managed: --model-file and more words are for a llama-server; \
                        Ollama has its own models and is set by its environment";
            return Err(Failure::usage(text));
        }
        let number = gpu.and_then(|gpu| u16::try_from(gpu).ok()).unwrap_or(0);
        let port = self.ollama_port.unwrap_or(BASE_PORT.saturating_add(number));
        Ok(Own { words, port, files: is_llama.then_some(files) })
    }
}

/// A model's name and its file.
fn named(given: &str) -> (String, PathBuf) {
    match given.split_once('=') {
        Some((name, file)) => (name.to_owned(), file.into()),
        None => {
            let file = PathBuf::from(given);
            let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            (stem.unwrap_or_else(|| given.to_owned()), file)
        }
    }
}

/// Whose server it is, and where.
pub(crate) struct Place<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) worker: &'a Name,
    /// The GPU's identity, or its number.
    pub(crate) gpu: Option<String>,
    pub(crate) settings: &'a Settings,
}

/// Makes its server ready to be asked, starting it where it is its own. Nothing is known of it yet,
/// and one that is found at an address need not be there.
pub(crate) fn start(engine: &Engine, place: &Place<'_>) -> Result<Models, Failure> {
    let settings = place.settings;
    let limits = Limits {
        silence: settings.answer_idle_timeout.0,
        load: settings.load_timeout.0,
        ..Limits::default()
    };
    let server: Arc<dyn Server> = match engine {
        Engine::Ollama(address) => Arc::new(Ollama::new(address.clone(), limits)),
        Engine::OpenAi(address) => Arc::new(OpenAi::new(address.clone(), limits)),
        Engine::Own(own) => Arc::new(start_own(own, place, limits)?),
    };
    Ok(Models::new(place.worker.clone(), server, Patience::of(settings)))
}

fn start_own(own: &Own, place: &Place<'_>, limits: Limits) -> Result<Managed, Failure> {
    let (pool, worker) = (place.pool.layout(), place.worker);
    let words = own.words.iter().skip(1).map(OsString::from).collect();
    let program = match own.files.clone() {
        None => Program::Ollama,
        Some(models) => Program::LlamaServer { models, words },
    };
    let name = own.words.first().cloned().unwrap_or_default();
    let start = Start {
        program: PathBuf::from(&name),
        port: own.port,
        gpu: place.gpu.clone(),
        env: Vec::new(),
        log: pool.logs().join(format!("server-{worker}.log")),
        mark: queue::fence::server_mark(pool.root(), worker),
        grace: place.settings.grace_period.0,
    };
    Managed::start(program, start, limits).map_err(|err| {
        Failure::new(exit::UNEXPECTED, format!("could not start the model server {name}: {err}"))
    })
}
