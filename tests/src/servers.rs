//! Model servers for tests: the stand-in for Ollama, and a real llama-server and a real Ollama where
//! there are such.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use serde_json::Value;

use crate::process::Proc;
use crate::{Pool, programs};

/// The stand-in for Ollama, running.
#[derive(Debug)]
pub struct FakeOllama {
    proc: Proc,
    settings: PathBuf,
    requests: PathBuf,
    address: String,
}

impl FakeOllama {
    /// Starts one; its settings are described in `src/bin/fake_ollama/settings.rs`.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[must_use]
    pub fn start(pool: &Pool, settings: Value) -> Self {
        Self::named(pool, "ollama", settings)
    }

    /// The same where a test needs several.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[must_use]
    pub fn named(pool: &Pool, name: &str, settings: Value) -> Self {
        Self::at(pool, name, 0, settings)
    }

    /// The same at a port.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[must_use]
    pub fn at(pool: &Pool, name: &str, port: u16, settings: Value) -> Self {
        let file = |end: &str| PathBuf::from(pool.at(&format!("{name}.{end}")));
        let (settings_file, requests) = (file("json"), file("requests"));
        write(&settings_file, &requests, settings);
        let mut command = pool.command("fake-ollama", &["serve"]);
        command.env("FAKE_OLLAMA", &settings_file).env("OLLAMA_HOST", format!("127.0.0.1:{port}"));
        let proc = pool.start(&mut command);
        let address = pool.until("the stand-in to listen", || {
            let said = proc.stderr();
            // A line may be seen before all of it is written.
            let whole = said.rsplit_once('\n')?.0;
            let line = whole.lines().find_map(|line| line.strip_prefix("Listening on "));
            line.map(|address| format!("http://{address}"))
        });
        Self { proc, settings: settings_file, requests, address }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Proc {
        &self.proc
    }

    /// Its process, to be ended.
    #[must_use]
    pub fn into_process(self) -> Proc {
        self.proc
    }

    /// Changes what it does from the next request on.
    ///
    /// # Panics
    ///
    /// When the settings cannot be written.
    pub fn set(&self, settings: Value) {
        write(&self.settings, &self.requests, settings);
    }

    /// All requests so far, as `{"method", "path", "body"}`.
    ///
    /// # Panics
    ///
    /// When one cannot be understood.
    #[must_use]
    pub fn requests(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.requests).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// The bodies of the requests to one path.
    #[must_use]
    pub fn bodies(&self, path: &str) -> Vec<Value> {
        let requests = self.requests().into_iter().filter(|request| request["path"] == path);
        requests.map(|mut request| request["body"].take()).collect()
    }
}

fn write(file: &Path, requests: &Path, mut settings: Value) {
    settings["requests"] = requests.to_string_lossy().into();
    let aside = file.with_extension("new");
    fs::write(&aside, settings.to_string()).expect("write the settings aside");
    #[expect(clippy::disallowed_methods, reason = "a test's own file, read by another process")]
    fs::rename(aside, file).expect("put the settings in place");
}

/// A port that nobody listens at, a moment ago.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen at any port");
    listener.local_addr().expect("a listener has an address").port()
}

/// A port that nobody listens at, a moment ago, and neither at the next one.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn free_port_pair() -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut ports = (0..100).map(|_| free_port()).filter(|port| *port < u16::MAX);
    ports.find(|port| free(port + 1)).expect("two free ports")
}

/// A real llama-server with a model of a few hundred kilobytes.
#[derive(Debug)]
pub struct Llama {
    proc: Proc,
    address: String,
}

impl Llama {
    /// Starts one with `slow.gguf` or `tiny.gguf`, named as in the file, and more words. `None`,
    /// which it says on stderr, where there is no llama-server: see `run.sh`.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[must_use]
    pub fn start(pool: &Pool, model: &str, more: &[&str]) -> Option<Self> {
        let (server, models) = llama_models()?;
        let port = free_port();
        let mut command = Command::new(server);
        command.env_clear().env("HOME", pool.home()).env("PATH", env::var_os("PATH")?);
        command.current_dir(pool.home()).stdin(Stdio::null()).arg("-m");
        command.arg(models.join(format!("{model}.gguf"))).args(["--alias", model, "-c", "2048"]);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]).args(more);
        let proc = pool.start(&mut command);
        pool.until_true("llama-server to listen", || proc.stderr().contains("server is listening"));
        Some(Self { proc, address: format!("http://127.0.0.1:{port}") })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Proc {
        &self.proc
    }
}

/// The program llama-server and the folder of its models, from `$LLAMA_SERVER` and `$LLAMA_MODELS`,
/// which `run.sh` sets, or from where it puts them. `None`, which it says, where there are none.
#[must_use]
pub fn llama_models() -> Option<(PathBuf, PathBuf)> {
    let kept = programs::target().parent()?.join("llm");
    let server =
        env::var_os("LLAMA_SERVER").map_or_else(|| kept.join("llama-server"), PathBuf::from);
    let models = env::var_os("LLAMA_MODELS").map_or(kept, PathBuf::from);
    if server.is_file() && models.join("tiny.gguf").is_file() {
        return Some((server, models));
    }
    // Where run.sh promised one, there must be one.
    assert!(env::var_os("LLAMA_SERVER").is_none(), "{} is missing", server.display());
    crate::skip("needs llama-server, which `./run.sh test` gets");
    None
}

/// A real llama-server that can be a router, from `$LLAMA_ROUTER`, which `run.sh` sets, or from where
/// it puts it. `None`, which it says, where there is none.
///
/// # Panics
///
/// When `$LLAMA_ROUTER` is not there.
#[must_use]
pub fn llama_router() -> Option<PathBuf> {
    prepared("LLAMA_ROUTER", "router/llama-router", "a llama-server that can be a router")
}

/// A file that `run.sh` names in a variable, or has put at a place below `target/llm`.
fn prepared(variable: &str, kept: &str, what: &str) -> Option<PathBuf> {
    let kept = programs::target().parent()?.join("llm").join(kept);
    let file = env::var_os(variable).map_or(kept, PathBuf::from);
    if file.is_file() {
        return Some(file);
    }
    // Where run.sh promised one, there must be one.
    assert!(env::var_os(variable).is_none(), "{} is missing", file.display());
    crate::skip(&format!("needs {what}, which `./run.sh test` gets"));
    None
}

/// A real `ollama`, serving the tiny model under the name `tiny` (see [`Ollama::start`]).
#[derive(Debug)]
pub struct Ollama {
    proc: Proc,
    address: String,
}

impl Ollama {
    /// Starts `$OLLAMA_BIN`, with models of this house only. `None`, which it says, where that is
    /// not set, or where there is no model to give it: no package registry has an Ollama.
    ///
    /// # Panics
    ///
    /// When it does not start, or does not take the model.
    #[must_use]
    pub fn start(pool: &Pool) -> Option<Self> {
        let Some(program) = env::var_os("OLLAMA_BIN") else {
            crate::skip("needs a real Ollama: set OLLAMA_BIN to its program");
            return None;
        };
        let (_server, models) = llama_models()?;
        let host = format!("127.0.0.1:{}", free_port());
        let program = PathBuf::from(program).into_os_string().into_string().expect("a UTF-8 path");
        let command = |words: &[&str]| {
            let mut command = pool.foreign(&program, words);
            command.env("OLLAMA_HOST", &host).env("OLLAMA_MODELS", pool.at("ollama-models"));
            command.env("OLLAMA_NO_CLOUD", "1");
            command
        };
        let proc = pool.start(&mut command(&["serve"]));
        pool.until_true("ollama to listen", || std::net::TcpStream::connect(&host).is_ok());
        let model = pool.home().join("Modelfile");
        let file = models.join("tiny.gguf");
        fs::write(&model, format!("FROM {}\n", file.display())).expect("write the Modelfile");
        let made = pool.start(&mut command(&["create", "tiny", "-f", "Modelfile"])).end();
        let _made = made.success();
        Some(Self { proc, address: format!("http://{host}") })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Proc {
        &self.proc
    }
}

/// A Python in which the official clients of Ollama and OpenAI are installed, from `$LLM_CLIENTS`,
/// which `run.sh` sets, or from where it puts them. `None`, which it says, where there is none.
///
/// # Panics
///
/// When `$LLM_CLIENTS` is not there.
#[must_use]
pub fn client_python() -> Option<PathBuf> {
    prepared("LLM_CLIENTS", "clients/bin/python3", "the clients of Ollama and OpenAI")
}
