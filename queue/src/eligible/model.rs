//! What stands between a worker and tasks that need a model, or the memory that a model holds.

use shared::llm::{
    Busy, FailedLoad, Health, HeldModel, HeldState, Loads, ModelServer, ServerKind, bare_name,
};
use shared::name::Name;
use shared::outcome::Cause;
use shared::reason::{Code, Reason};
use shared::task::Class;

use super::Candidate;
use crate::wire::heartbeat::Ability;
use crate::wire::lane::Requirements;

/// The classes a worker takes, most wanted first. One that holds a model has its requests before
/// everything else, and no memory for scripts.
#[must_use]
pub fn preferred(ability: &Ability) -> Vec<Class> {
    let mut classes = ability.classes.clone();
    let Some(server) = &ability.server else { return classes };
    if server.loaded().next().is_none() {
        return classes;
    }
    if in_the_way(server).is_some() {
        classes.retain(|class| *class != Class::Script);
    }
    let rank = |class: &Class| match class {
        Class::Resource => 0,
        Class::Llm => 1,
        Class::Cpu => 2,
        Class::Script => 3,
    };
    classes.sort_by_key(rank);
    classes
}

/// Why the worker's model server, or what it holds, stands in the way of a lane.
pub(super) fn reasons(candidate: Candidate<'_>, lane: &Requirements) -> Vec<Reason> {
    let (name, Some(server)) = (candidate.name, &candidate.ability.server) else {
        return no_server(candidate, lane);
    };
    match (lane.class, &lane.model) {
        (Class::Llm, Some(model)) => {
            let mut reasons: Vec<Reason> = ill(name, server).into_iter().collect();
            reasons.extend(match server.busy_with(model) {
                Some(said) => Some(busy(name, server, said)),
                None => without(name, server, model),
            });
            reasons
        }
        (Class::Llm, None) => ill(name, server).into_iter().collect(),
        // A wedged server may be helped by loading anew; one that is down cannot be asked.
        (Class::Resource, _) => {
            let down = ill(name, server).into_iter().filter(|r| r.code == Code::ServerDown);
            down.chain(server.busy_loading().map(|said| busy(name, server, said))).collect()
        }
        (Class::Script, _) => {
            in_the_way(server).map(|held| holds(name, held)).into_iter().collect()
        }
        (Class::Cpu, _) => Vec::new(),
    }
}

/// A worker that takes such tasks has a server; one that does not has said so by its classes.
fn no_server(candidate: Candidate<'_>, lane: &Requirements) -> Vec<Reason> {
    match (lane.class, &lane.model) {
        (Class::Llm, Some(model)) if candidate.ability.classes.contains(&Class::Llm) => {
            let text = format!("llm needs {model}: {} has no model server", candidate.name);
            vec![Reason::new(Code::ModelNotLoaded, text).evidence("model", model.as_str())]
        }
        (Class::Llm | Class::Script | Class::Resource | Class::Cpu, _) => Vec::new(),
    }
}

/// That the server is down, or wedged.
fn ill(name: &Name, server: &ModelServer) -> Option<Reason> {
    let address = &server.address;
    let said = server.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
    let reason = match server.health {
        Health::Up | Health::Unknown => return None,
        Health::Down => {
            let text = format!("{name}'s model server {address} does not answer{said}");
            let reason = Reason::new(Code::ServerDown, text);
            match start_of(server) {
                Some(command) => reason.fix(command),
                None => reason,
            }
        }
        Health::Wedged => {
            let text = format!(
                "{name}'s model server {address} answers pings, but its models do not answer{said}"
            );
            Reason::new(Code::ServerWedged, text)
        }
    };
    Some(reason.since(server.health_since).evidence("server", address.as_str()))
}

/// That it is asked for nothing for a while, because it said that it is busy.
fn busy(name: &Name, server: &ModelServer, said: &Busy) -> Reason {
    let Busy { model, since, until, message } = said;
    let text =
        format!("{name}'s model server is busy, {model} is asked for again at {until}: {message}");
    let reason = Reason::new(Code::ServerBusy, text).since(*since);
    reason.evidence("server", server.address.as_str()).evidence("model", model.as_str())
}

/// The command that would start such a server. Not where somebody is there, or the worker starts it.
fn start_of(server: &ModelServer) -> Option<String> {
    let port = server.address.strip_prefix("http://127.0.0.1:")?;
    let nobody = server.error.as_ref().is_some_and(|error| error.contains("refused"));
    match server.kind {
        ServerKind::Ollama if nobody => Some(format!("OLLAMA_HOST=127.0.0.1:{port} ollama serve")),
        ServerKind::Ollama | ServerKind::OpenAi => None,
    }
}

/// Why this model cannot be asked now; `None` where it can.
fn without(name: &Name, server: &ModelServer, model: &str) -> Option<Reason> {
    let reason = match server.held(model) {
        Some(held) => of_held(name, held, model)?,
        None => of_absent(name, server, model),
    };
    Some(reason.evidence("model", model))
}

fn of_held(name: &Name, held: &HeldModel, model: &str) -> Option<Reason> {
    let (code, what) = match (held.state, &held.error) {
        (HeldState::Loaded, _) => return None,
        (HeldState::Loading, _) => (Code::ModelLoading, format!("{name} is loading it")),
        (HeldState::Unproven, Some(error)) => {
            (Code::ModelSilent, format!("{name} holds it, and it does not answer: {error}"))
        }
        (HeldState::Unproven, None) => {
            (Code::ModelLoading, format!("{name} holds it, and it has not answered yet"))
        }
        (HeldState::Unloading, _) => (Code::ModelNotLoaded, format!("{name} is unloading it")),
    };
    let reason = Reason::new(code, format!("llm needs {model}: {what}")).since(held.since);
    Some(reason.evidence("state", held.state.as_str()))
}

fn of_absent(name: &Name, server: &ModelServer, model: &str) -> Reason {
    if server.knows(model) == Some(false) {
        return missing(name, server, model);
    }
    match server.failed_loads.iter().find(|failed| shared::llm::is_same_model(&failed.model, model))
    {
        Some(failed) => of_failed(name, failed, model),
        None => {
            let text = format!("llm needs {model}: not loaded on {name}");
            Reason::new(Code::ModelNotLoaded, text)
        }
    }
}

/// The server has said what it has, and this is not among it.
fn missing(name: &Name, server: &ModelServer, model: &str) -> Reason {
    let known: Vec<&str> = server.known.iter().flatten().map(String::as_str).collect();
    let has = match known.len() {
        0 => "none at all".to_owned(),
        1..=5 => known.join(", "),
        more => format!("{} and {} more", known[..4].join(", "), more - 4),
    };
    // A tag that is meant anyway makes nothing more, or less, alike.
    let bare: Vec<&str> = known.iter().map(|name| bare_name(name)).collect();
    let near = shared::name::nearest(model, &bare);
    let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    let text = format!("llm needs {model}: {name}'s server does not know it (it has {has}){hint}");
    let reason = Reason::new(Code::ModelMissing, text).evidence("known", known);
    match server.kind {
        ServerKind::Ollama => reason.fix(match server.address.strip_prefix("http://") {
            // What `ollama` asks by itself.
            Some("127.0.0.1:11434") | None => format!("ollama pull {model}"),
            Some(host) => format!("OLLAMA_HOST={host} ollama pull {model}"),
        }),
        ServerKind::OpenAi => reason,
    }
}

fn of_failed(name: &Name, failed: &FailedLoad, model: &str) -> Reason {
    let (code, what) = if failed.cause == Cause::Oom {
        (Code::ModelTooBig, "it does not fit there")
    } else if failed.cause == Cause::ModelMissing {
        (Code::ModelMissing, "its server does not have it")
    } else {
        (Code::ModelNotLoaded, "the last load failed")
    };
    let text = format!("llm needs {model}: tried on {name}, {what} ({})", failed.message);
    let reason = Reason::new(code, text).since(failed.at);
    reason.evidence("cause", failed.cause.as_str()).evidence("error", failed.message.as_str())
}

/// A model that takes the GPU memory that a script may need. What a server was started with is
/// there for good and is the operator's own reckoning; what is wholly on the processor takes none.
fn in_the_way(server: &ModelServer) -> Option<&HeldModel> {
    let takes = |held: &&HeldModel| held.vram.is_none_or(|vram| vram.0 > 0);
    match server.loads {
        Loads::Fixed => None,
        Loads::OnRequest => server.models.iter().find(takes),
    }
}

fn holds(name: &Name, held: &HeldModel) -> Reason {
    let model = &held.model;
    let text = format!(
        "{name} holds model {model}, which has the GPU's memory; it is unloaded first, when no task \
         needs it"
    );
    let reason = Reason::new(Code::VramShort, text).since(held.since);
    reason.evidence("holder", model.as_str()).evidence("vram", held.vram.map(|vram| vram.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eligible::reasons;
    use shared::llm::ServerKind;
    use shared::quantity::Bytes;
    use shared::time::Moment;

    fn held(model: &str, state: HeldState) -> HeldModel {
        let size = Some(Bytes(4 << 30));
        HeldModel {
            model: model.into(),
            state,
            since: Moment::now(),
            size,
            vram: size,
            error: None,
        }
    }

    fn server(models: Vec<HeldModel>) -> ModelServer {
        ModelServer {
            kind: ServerKind::Ollama,
            address: "http://127.0.0.1:11437".into(),
            loads: Loads::OnRequest,
            health: Health::Up,
            health_since: Moment::now(),
            error: None,
            models,
            known: Some(vec!["qwen:7b".into(), "tiny:latest".into()]),
            failed_loads: Vec::new(),
            busy: Vec::new(),
            canary: None,
        }
    }

    fn ability(server: ModelServer) -> Ability {
        Ability {
            classes: vec![Class::Resource, Class::Script, Class::Cpu, Class::Llm],
            gpu: Some(1),
            gpu_uuid: None,
            gpu_memory: None,
            gpu_state: crate::wire::heartbeat::gpu_state::GpuState::default(),
            gpu_slots: 1,
            cpu_slots: 1,
            paused: None,
            draining: None,
            starved: None,
            backs_off: Vec::new(),
            server: Some(server),
        }
    }

    fn lane(class: Class, model: Option<&str>) -> Requirements {
        let model = model.map(str::to_owned);
        Requirements {
            class,
            model,
            gpu_memory: None,
            limits: vec![],
            worker: None,
            max_wait: None,
        }
    }

    fn why(server: ModelServer, class: Class, model: Option<&str>) -> Vec<(Code, String)> {
        let (name, ability) = ("worker-1".parse().unwrap(), ability(server));
        let candidate = Candidate { name: &name, ability: &ability, current: &[] };
        let reasons = reasons(candidate, &lane(class, model));
        reasons.into_iter().map(|reason| (reason.code, reason.text)).collect()
    }

    fn codes(server: ModelServer, class: Class, model: Option<&str>) -> Vec<Code> {
        why(server, class, model).into_iter().map(|(code, _text)| code).collect()
    }

    #[test]
    fn a_model_can_be_asked_when_it_has_answered() {
        for (state, expected) in [
            (HeldState::Loaded, vec![]),
            (HeldState::Loading, vec![Code::ModelLoading]),
            (HeldState::Unproven, vec![Code::ModelLoading]),
            (HeldState::Unloading, vec![Code::ModelNotLoaded]),
        ] {
            let server = server(vec![held("tiny:latest", state)]);
            assert_eq!(codes(server, Class::Llm, Some("tiny")), expected, "{state}");
        }
        assert_eq!(codes(server(vec![]), Class::Llm, Some("tiny")), [Code::ModelNotLoaded]);
        let error = Some("status 500: no credit left".to_owned());
        let fails = HeldModel { error, ..held("tiny", HeldState::Unproven) };
        let text = "llm needs tiny: worker-1 holds it, and it does not answer: status 500: no credit \
                    left";
        let told = why(server(vec![fails]), Class::Llm, Some("tiny"));
        assert_eq!(told, [(Code::ModelSilent, text.to_owned())]);
    }

    #[test]
    fn what_the_server_does_not_have_is_told_from_what_does_not_fit() {
        let missing = why(server(vec![]), Class::Llm, Some("qwen:8b"));
        let text = "llm needs qwen:8b: worker-1's server does not know it (it has qwen:7b, \
                    tiny:latest); did you mean qwen:7b?";
        assert_eq!(missing, [(Code::ModelMissing, text.to_owned())]);
        let failed = |cause| FailedLoad {
            model: "tiny".into(),
            cause,
            message: "cudaMalloc failed: out of memory".into(),
            at: Moment::now(),
        };
        let with = |cause| ModelServer { failed_loads: vec![failed(cause)], ..server(vec![]) };
        assert_eq!(codes(with(Cause::Oom), Class::Llm, Some("tiny")), [Code::ModelTooBig]);
        let other = codes(with(Cause::ServerError), Class::Llm, Some("tiny"));
        assert_eq!(other, [Code::ModelNotLoaded]);
        let silent = ModelServer { known: None, ..server(vec![]) };
        assert_eq!(
            codes(silent, Class::Llm, Some("any")),
            [Code::ModelNotLoaded],
            "unknown is not no"
        );
    }

    #[test]
    fn a_server_that_does_not_answer_keeps_its_own_lanes_shut_and_no_others() {
        let ill = |health| ModelServer { health, ..server(vec![held("tiny", HeldState::Loaded)]) };
        let down = ModelServer { health: Health::Down, ..server(vec![]) };
        assert_eq!(codes(ill(Health::Down), Class::Llm, Some("tiny")), [Code::ServerDown]);
        assert_eq!(codes(ill(Health::Wedged), Class::Llm, Some("tiny")), [Code::ServerWedged]);
        assert_eq!(codes(ill(Health::Wedged), Class::Resource, None), []);
        assert_eq!(codes(down.clone(), Class::Resource, None), [Code::ServerDown]);
        assert_eq!(codes(down, Class::Script, None), []);
    }

    #[test]
    fn what_its_server_has_no_time_for_is_said_in_its_words_and_keeps_nothing_else_shut() {
        let busy = |model: &str| Busy {
            model: model.into(),
            since: Moment::from_unix_millis(0),
            until: Moment::from_unix_millis(2_000),
            message: "status 429: slow down".into(),
        };
        let loaded = |names: &[&str]| names.iter().map(|n| held(n, HeldState::Loaded)).collect();
        let there = ModelServer { busy: vec![busy("tiny")], ..server(loaded(&["tiny", "other"])) };
        let text = "worker-1's model server is busy, tiny is asked for again at \
                    1970-01-01T00:00:02.000Z: status 429: slow down";
        let told = why(there.clone(), Class::Llm, Some("tiny"));
        assert_eq!(told, [(Code::ServerBusy, text.to_owned())]);
        assert_eq!(codes(there.clone(), Class::Llm, Some("other")), []);
        assert_eq!(codes(there, Class::Resource, None), [], "what is loaded is in nobody's way");
        let absent = ModelServer { busy: vec![busy("tiny")], ..server(loaded(&["other"])) };
        assert_eq!(codes(absent.clone(), Class::Resource, None), [Code::ServerBusy]);
        assert_eq!(codes(absent, Class::Llm, Some("tiny")), [Code::ServerBusy]);
    }

    #[test]
    fn a_model_in_gpu_memory_keeps_scripts_out() {
        let full = server(vec![held("tiny", HeldState::Loaded)]);
        assert_eq!(codes(full.clone(), Class::Script, None), [Code::VramShort]);
        assert_eq!(codes(full.clone(), Class::Cpu, None), []);
        let fixed = ModelServer { loads: Loads::Fixed, ..full.clone() };
        assert_eq!(codes(fixed, Class::Script, None), []);
        let on_cpu = HeldModel { vram: Some(Bytes(0)), ..held("tiny", HeldState::Loaded) };
        assert_eq!(codes(server(vec![on_cpu]), Class::Script, None), []);
    }

    #[test]
    fn what_is_wanted_most_follows_from_what_is_held() {
        use Class::{Cpu, Llm, Resource, Script};
        assert_eq!(preferred(&ability(server(vec![]))), [Resource, Script, Cpu, Llm]);
        let holding = ability(server(vec![held("tiny", HeldState::Loaded)]));
        assert_eq!(preferred(&holding), [Resource, Llm, Cpu]);
        let plain = Ability { server: None, classes: vec![Cpu, Script], ..holding };
        assert_eq!(preferred(&plain), [Cpu, Script], "as its words said");
    }
}
