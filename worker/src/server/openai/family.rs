//! OpenAI's protocol says nothing about loading, so each server that can load has its own words for
//! it. Which server it is shows in what it answers to questions that only one of them knows.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared::llm::{HeldModel, HeldState, Loads};
use shared::outcome::Cause;
use shared::time::Moment;

use crate::server::http::{Call, Client};
use crate::server::{Again, Cancel, Failure};

/// From one look at what is held to the next, while a model comes or goes.
const LOOK: Duration = Duration::from_millis(100);

/// What a server is, as far as that changes how it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// It holds what it was started with, or has others hold it: TGI, SGLang, gateways.
    Other,
    /// llama-server with one model.
    LlamaServer,
    /// vLLM with one model.
    Vllm,
    /// llama-server as a router over a folder of models.
    Router,
    /// llama-swap, which starts a server for each model.
    Swap,
    /// vLLM with sleep mode: it lets go of the memory of its one model.
    Sleeper,
}

impl Family {
    pub(super) fn detect(client: &Client) -> Result<Self, Failure> {
        if client.get_if_there("/running")?.is_some_and(|said| said.get("running").is_some()) {
            return Ok(Self::Swap);
        }
        let listed = client.get_if_there("/models")?;
        if listed.iter().flat_map(listed_models).any(|model| status(model).is_some()) {
            return Ok(Self::Router);
        }
        let sleeping = client.get_if_there("/is_sleeping")?;
        if sleeping.is_some_and(|said| said.get("is_sleeping").is_some_and(Value::is_boolean)) {
            return Ok(Self::Sleeper);
        }
        let listed = client.get("/v1/models")?;
        let owner = listed_models(&listed).next().and_then(|model| model.get("owned_by")?.as_str());
        Ok(match owner {
            Some("llamacpp") => Self::LlamaServer,
            Some("vllm") => Self::Vllm,
            Some(_) | None => Self::Other,
        })
    }

    /// Whether the server answers, and is through with loading what it was started with. Costs
    /// nothing: `/health` is asked only where it is known to be about the server alone. A gateway
    /// asks each model behind it for an answer then, which somebody pays for.
    pub(super) fn ready(self, client: &Client) -> Result<Ready, Failure> {
        let path = match self {
            Self::LlamaServer | Self::Vllm | Self::Sleeper => "/health",
            Self::Swap => "/running",
            Self::Router => "/models",
            Self::Other => "/v1/models",
        };
        let (cancel, patience) = (Cancel::default(), client.limits().glance);
        let call = Call { path, body: None, patience, cancel: &cancel };
        match client.call(call).map(drop) {
            Ok(()) => Ok(Ready::Yes),
            Err(failure) if is_loading(&failure) => Ok(Ready::Loading),
            Err(failure) => Err(failure),
        }
    }

    /// Whether its lists alone do not tell whether it works.
    pub(super) const fn has_health(self) -> bool {
        matches!(self, Self::LlamaServer | Self::Vllm | Self::Sleeper)
    }

    pub(super) const fn loads(self) -> Loads {
        match self {
            Self::Other | Self::LlamaServer | Self::Vllm => Loads::Fixed,
            Self::Router | Self::Swap | Self::Sleeper => Loads::OnRequest,
        }
    }

    pub(super) fn held(self, client: &Client) -> Result<Vec<HeldModel>, Failure> {
        let held: Vec<(String, HeldState)> = match self {
            Self::Other | Self::LlamaServer | Self::Vllm => all_models(client)?,
            Self::Sleeper if is_asleep(client)? => Vec::new(),
            Self::Sleeper => all_models(client)?,
            Self::Router => {
                let said = client.get("/models")?;
                let one = |model| Some((id(model)?.to_owned(), router_state(status(model)?)?));
                listed_models(&said).filter_map(one).collect()
            }
            Self::Swap => {
                let said = client.get("/running")?;
                let running = said.get("running").and_then(Value::as_array).into_iter().flatten();
                let one = |model: &Value| {
                    let name = model.get("model")?.as_str()?.to_owned();
                    Some((name, swap_state(model.get("state")?.as_str()?)?))
                };
                running.filter_map(one).collect()
            }
        };
        let since = Moment::now();
        let held = held.into_iter();
        Ok(held
            .map(|(model, state)| HeldModel {
                model,
                state,
                since,
                size: None,
                vram: None,
                error: None,
            })
            .collect())
    }

    pub(super) fn load(self, client: &Client, model: &str, cancel: &Cancel) -> Result<(), Failure> {
        let patience = client.limits().load;
        let post = |path: &str, body: &Value| {
            client.call(Call { path, body: Some(body), patience, cancel }).map(drop)
        };
        match self {
            Self::Other | Self::LlamaServer | Self::Vllm => return self.has_it(client, model),
            Self::Sleeper => {
                self.knows_it(client, model)?;
                post("/wake_up", &json!({}))?;
            }
            // It says "File Not Found" to a name that it does not know, as to any wrong path.
            Self::Router => {
                self.knows_it(client, model)?;
                let asked = post("/models/load", &json!({ "model": model }));
                unless_it_says(asked, "already")?;
            }
            // Answered by the model's own server, once that is there.
            Self::Swap => {
                let path = format!("/upstream/{}/health", in_a_path(model));
                client.call(Call { path: &path, body: None, patience, cancel }).map(drop)?;
            }
        }
        self.until_loaded(client, model, cancel)
    }

    pub(super) fn unload(
        self,
        client: &Client,
        model: &str,
        cancel: &Cancel,
    ) -> Result<(), Failure> {
        let patience = client.limits().unload;
        let post = |path: &str, body: &Value| {
            client.call(Call { path, body: Some(body), patience, cancel }).map(drop)
        };
        match self {
            Self::Other | Self::LlamaServer | Self::Vllm => {
                let held = self.held(client)?;
                if held.iter().all(|held| held.model != model) {
                    return Ok(());
                }
                let problem = "it holds what it was started with and cannot unload it";
                return Err(Failure::unaskable(&doing(client, "unloading", model), problem));
            }
            Self::Sleeper => post("/sleep?level=1", &json!({}))?,
            Self::Router => {
                let asked = post("/models/unload", &json!({ "model": model }));
                unless_it_says(asked, "not running")?;
            }
            Self::Swap => {
                let path = format!("/api/models/unload/{}", in_a_path(model));
                post(&path, &json!({}))?;
            }
        }
        self.until_gone(client, model, cancel)
    }

    fn has_it(self, client: &Client, model: &str) -> Result<(), Failure> {
        self.knows_it(client, model)?;
        match self.state(client, model)? {
            Some(_) => Ok(()),
            None => {
                Err(Failure::transport(&doing(client, "loading", model), "it is not there yet"))
            }
        }
    }

    fn knows_it(self, client: &Client, model: &str) -> Result<(), Failure> {
        let known = all_models(client)?;
        if known.iter().any(|(name, _)| name == model) {
            return Ok(());
        }
        let names: Vec<_> = known.into_iter().map(|(name, _)| name).collect();
        let doing = doing(client, "loading", model);
        let message = format!("{doing}: it has only {}", names.join(", "));
        Err(Failure { cause: Cause::ModelMissing, again: Again::Never, message, refused: None })
    }

    fn state(self, client: &Client, model: &str) -> Result<Option<HeldState>, Failure> {
        let held = self.held(client)?;
        Ok(held.into_iter().find(|held| held.model == model).map(|held| held.state))
    }

    fn until_loaded(self, client: &Client, model: &str, cancel: &Cancel) -> Result<(), Failure> {
        let what = || doing(client, "loading", model);
        let start = Instant::now();
        let mut was_loading = false;
        loop {
            match self.state(client, model)? {
                Some(HeldState::Loaded | HeldState::Unproven) => return Ok(()),
                Some(HeldState::Loading) => was_loading = true,
                Some(HeldState::Unloading) | None if was_loading => {
                    return Err(Failure::transport(&what(), &why_not(client, model)));
                }
                // A load may have come to nothing between two looks.
                Some(HeldState::Unloading) | None if self.says_it_failed(client, model) => {
                    return Err(Failure::transport(&what(), &why_not(client, model)));
                }
                Some(HeldState::Unloading) | None => {
                    was_loading = start.elapsed() > client.limits().glance;
                }
            }
            if start.elapsed() > client.limits().load {
                return Err(Failure::silent(&what(), client.limits().load));
            }
            if !cancel.pause(LOOK) {
                return Err(Failure::given_up(&what()));
            }
        }
    }

    /// Only a router does; it forgets it when it begins to load anew.
    fn says_it_failed(self, client: &Client, model: &str) -> bool {
        self == Self::Router
            && in_the_routers_list(client, model)
                .is_some_and(|one| one.pointer("/status/failed") == Some(&Value::Bool(true)))
    }

    fn until_gone(self, client: &Client, model: &str, cancel: &Cancel) -> Result<(), Failure> {
        let start = Instant::now();
        while self.state(client, model)?.is_some() {
            let what = || doing(client, "unloading", model);
            if start.elapsed() > client.limits().unload {
                return Err(Failure::silent(&what(), client.limits().unload));
            }
            if !cancel.pause(LOOK) {
                return Err(Failure::given_up(&what()));
            }
        }
        Ok(())
    }
}

/// Whether a server is through with loading what it was started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    Yes,
    Loading,
}

/// llama-server's words for everything while it loads its model.
pub(super) fn is_loading(failure: &Failure) -> bool {
    failure.message.contains("Loading model")
}

fn doing(client: &Client, verb: &str, model: &str) -> String {
    format!("{}: {verb} {model}", client.address())
}

/// What the router says of one model.
fn in_the_routers_list(client: &Client, model: &str) -> Option<Value> {
    let said = client.get("/models").ok()?;
    listed_models(&said).find(|one| id(one) == Some(model)).cloned()
}

/// What the router says of a load that came to nothing.
fn why_not(client: &Client, model: &str) -> String {
    let of_it = in_the_routers_list(client, model);
    let code = of_it.as_ref().and_then(|one| one.pointer("/status/exit_code"));
    match code.and_then(Value::as_i64) {
        Some(code) => format!("its process ended with {code}; the server's own log says why"),
        None => "it came to nothing; the server's own log says why".to_owned(),
    }
}

/// Names may hold slashes and colons, and keep them.
fn in_a_path(model: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'/' | b':' | b'.' | b'-' | b'_' | b'@' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    model.bytes().map(encoded).collect()
}

fn unless_it_says(asked: Result<(), Failure>, words: &str) -> Result<(), Failure> {
    match asked {
        Err(failure) if failure.message.contains(words) => Ok(()),
        asked => asked,
    }
}

pub(super) fn listed_models(said: &Value) -> impl Iterator<Item = &Value> {
    said.get("data").and_then(Value::as_array).into_iter().flatten()
}

pub(super) fn id(model: &Value) -> Option<&str> {
    model.get("id")?.as_str()
}

fn status(model: &Value) -> Option<&str> {
    model.pointer("/status/value")?.as_str()
}

fn router_state(status: &str) -> Option<HeldState> {
    match status {
        "loaded" | "sleeping" => Some(HeldState::Unproven),
        "loading" => Some(HeldState::Loading),
        _ => None,
    }
}

fn swap_state(state: &str) -> Option<HeldState> {
    match state {
        "ready" => Some(HeldState::Unproven),
        "starting" => Some(HeldState::Loading),
        "stopping" => Some(HeldState::Unloading),
        _ => None,
    }
}

fn is_asleep(client: &Client) -> Result<bool, Failure> {
    let said = client.get("/is_sleeping")?;
    Ok(said.get("is_sleeping") == Some(&Value::Bool(true)))
}

fn all_models(client: &Client) -> Result<Vec<(String, HeldState)>, Failure> {
    let said = client.get("/v1/models")?;
    let names = listed_models(&said).filter_map(id);
    Ok(names.map(|name| (name.to_owned(), HeldState::Unproven)).collect())
}
