//! Model servers as people name them on the command line: the same words for a worker and for the
//! brain, which passes them on to the workers that it starts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use shared::address::Address;
use shared::settings::BasePort;

use crate::cli::Failure;

/// A model server: with one a worker takes llm tasks too.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerArgs {
    /// The address of an Ollama server, as http://HOST:PORT; jobs get it as OLLAMA_HOST
    #[arg(long, value_name = "URL", conflicts_with = "managed")]
    ollama_url: Option<String>,
    /// The address of a server that speaks OpenAI's protocol (llama-server, llama-swap, vLLM); the
    /// key that it may ask for is taken from $BRAINSTEM_API_KEY, or from the setting api_key_file
    #[arg(long, value_name = "URL", conflicts_with_all = ["ollama_url", "managed"])]
    openai_url: Option<String>,
    /// Start this server beside the worker, on its port [default: 11436 and the GPU's number], and
    /// end it with the worker: `ollama`, or `llama-server` with more words for its command line
    #[arg(long, value_name = "PROGRAM …")]
    managed: Option<String>,
    /// A model that such a llama-server can be started with; may be given several times [default
    /// name: the file's, without its ending]
    #[arg(long, value_name = "[NAME=]FILE", requires = "managed")]
    model_file: Vec<String>,
}

/// A model server, as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerSetup {
    /// An Ollama that is there already: `--ollama-url`, or a port of this machine.
    Ollama(Address),
    /// One that speaks OpenAI's protocol.
    OpenAi(Address),
    /// One that the worker starts itself.
    Own(OwnServer),
}

/// A server that the worker starts itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnServer {
    /// The program, and more words for its command line.
    pub words: Vec<String>,
    /// The port on 127.0.0.1 that the worker starts it on.
    pub port: u16,
    /// Which models it can be started with, if it is a llama-server; else it is an Ollama.
    pub files: Option<BTreeMap<String, PathBuf>>,
}

impl ServerSetup {
    /// What jobs find in OLLAMA_HOST.
    #[must_use]
    pub fn ollama_host(&self) -> Option<String> {
        match self {
            Self::Ollama(address) => address.as_str().strip_prefix("http://").map(str::to_owned),
            Self::OpenAi(_) | Self::Own(OwnServer { files: Some(_), .. }) => None,
            Self::Own(OwnServer { port, files: None, .. }) => Some(format!("127.0.0.1:{port}")),
        }
    }

    /// The port of an Ollama server.
    #[must_use]
    pub fn ollama_port(&self) -> Option<u16> {
        self.ollama_host()?.rsplit_once(':')?.1.parse().ok()
    }
}

impl ServerArgs {
    /// Whether there are any.
    #[must_use]
    pub fn is_given(&self) -> bool {
        *self != Self::default()
    }

    /// Whether a server is to be started.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.managed.is_some()
    }

    /// The same words again, for another command line.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let Self { ollama_url, openai_url, managed, model_file } = self;
        let given =
            [("--ollama-url", ollama_url), ("--openai-url", openai_url), ("--managed", managed)];
        let given = given.into_iter().filter_map(|(flag, value)| Some((flag, value.as_ref()?)));
        let files = model_file.iter().map(|file| ("--model-file", file));
        // One word each: what begins with a dash is still the value.
        given.chain(files).map(|(flag, value)| format!("{flag}={value}")).collect()
    }

    /// What the words come to, beside a GPU. `port` is one of this machine: where an Ollama is, or
    /// a server of one's own will be.
    pub fn server_setup(
        &self,
        port: Option<u16>,
        gpu: Option<u32>,
    ) -> Result<Option<ServerSetup>, Failure> {
        let parse = |flag: &str, url: &str| {
            Address::parse(url).map_err(|err| Failure::usage(format!("{flag}: {err}")))
        };
        if let Some(command) = &self.managed {
            let port = port.or_else(|| BasePort::DEFAULT.of(gpu)).unwrap_or_default();
            return self.own(command, port).map(|own| Some(ServerSetup::Own(own)));
        }
        Ok(match (port, &self.ollama_url, &self.openai_url) {
            (Some(port), ..) => Some(ServerSetup::Ollama(Address::local(port))),
            (_, Some(url), _) => Some(ServerSetup::Ollama(parse("--ollama-url", url)?)),
            (_, _, Some(url)) => Some(ServerSetup::OpenAi(parse("--openai-url", url)?)),
            (None, None, None) => None,
        })
    }

    fn own(&self, command: &str, port: u16) -> Result<OwnServer, Failure> {
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
        Ok(OwnServer { words, port, files: is_llama.then_some(files) })
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
