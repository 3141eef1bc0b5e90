//! The worker's model server as it was asked for: found at an address, or started by the worker
//! itself.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use queue::cli::Failure;
use queue::cli::servers::{OwnServer, ServerSetup};
use queue::dir::Pool;
use shared::exit;
use shared::name::Name;
use shared::settings::Settings;

use crate::models::{Models, Patience};
use crate::server::{Key, Limits, Managed, Ollama, OpenAi, Program, Server, Start};

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
pub(crate) fn start(server_setup: &ServerSetup, place: &Place<'_>) -> Result<Models, Failure> {
    let settings = place.settings;
    let limits = Limits {
        silence: settings.answer_idle_timeout.0,
        load: settings.load_timeout.0,
        ..Limits::default()
    };
    let server: Arc<dyn Server> = match server_setup {
        ServerSetup::Ollama(address) => Arc::new(Ollama::new(address.clone(), limits)),
        ServerSetup::OpenAi(address) => {
            Arc::new(OpenAi::new(address.clone(), limits).with_key(key(settings)?))
        }
        ServerSetup::Own(own) => Arc::new(start_own(own, place, limits)?),
    };
    let models = Models::new(place.worker.clone(), server, Patience::of(settings));
    Ok(models.telling(server_setup.ollama_host()))
}

/// The key for servers that ask for one.
fn key(settings: &Settings) -> Result<Option<Key>, Failure> {
    Key::find(settings, |name| std::env::var(name).ok()).map_err(Failure::usage)
}

fn start_own(own: &OwnServer, place: &Place<'_>, limits: Limits) -> Result<Managed, Failure> {
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
        key: key(place.settings)?,
        log: pool.logs().join(format!("server-{worker}.log")),
        mark: queue::fence::server_mark(pool.root(), worker),
        grace: place.settings.grace_period.0,
    };
    Managed::start(program, start, limits).map_err(|err| {
        Failure::new(exit::UNEXPECTED, format!("could not start the model server {name}: {err}"))
    })
}
