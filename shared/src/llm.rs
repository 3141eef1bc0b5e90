//! Words about models: which servers hold them, which models are where, what a model answered.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::outcome::{Cause, words};
use crate::quantity::Bytes;
use crate::time::Moment;

words! {
    /// Which protocol a model server speaks.
    ServerKind {
        /// Ollama's own.
        Ollama = "ollama",
        /// OpenAI's, as llama-server, llama-swap and vLLM speak it.
        OpenAi = "openai",
    }
}

words! {
    /// What a `resource` task does with a model. The words are the task's name.
    ModelVerb {
        /// Loads it; has succeeded when the model has answered one token.
        Load = "load_llm",
        /// Unloads it; succeeds also where the model is not loaded.
        Unload = "unload_llm",
    }
}

impl ModelVerb {
    /// What who does it is at.
    #[must_use]
    pub const fn doing(self) -> &'static str {
        match self {
            Self::Load => "loading",
            Self::Unload => "unloading",
        }
    }
}

words! {
    /// How a server comes to hold a model.
    Loads {
        /// It is told to load and to unload.
        OnRequest = "on_request",
        /// It holds what it was started with.
        Fixed = "fixed",
    }
}

words! {
    /// How a model server fares.
    Health {
        /// Nobody has asked it yet.
        Unknown = "unknown",
        /// It answers.
        Up = "up",
        /// It does not answer at all.
        Down = "down",
        /// It answers pings, and no requests.
        Wedged = "wedged",
    }
}

words! {
    /// Where a model stands in a server's memory.
    HeldState {
        /// It is being loaded.
        Loading = "loading",
        /// It is there, and has answered.
        Loaded = "loaded",
        /// It is there, and not (or no longer) known to answer.
        Unproven = "unproven",
        /// It is being unloaded.
        Unloading = "unloading",
    }
}

/// A model that a server holds, or will in a moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldModel {
    /// Its name, as the server says it.
    pub model: String,
    /// Where it stands; only a `loaded` model is given tasks.
    pub state: HeldState,
    /// Since when it is in that state, by the worker's clock.
    pub since: Moment,
    /// What it takes in all, where known.
    pub size: Option<Bytes>,
    /// What of that is in GPU memory, where known. Less than `size`: partly on the processor.
    pub vram: Option<Bytes>,
    /// What went wrong at its last canary; `None` where it has answered since, or was not asked.
    #[serde(default)]
    pub error: Option<String>,
}

/// A load that failed, remembered so that it is not asked for again in vain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailedLoad {
    /// Its name, as the load asked for it.
    pub model: String,
    /// Why: `model_missing`, `oom`, `server_error`, …
    pub cause: Cause,
    /// What the server said.
    pub message: String,
    /// When it failed, by the worker's clock.
    pub at: Moment,
}

/// A model that its server has no time for: nothing is asked of it until the pause is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Busy {
    /// Its name, as it was asked for.
    pub model: String,
    /// Since when the server has said so, by the worker's clock.
    pub since: Moment,
    /// When it is asked again; the pauses grow up to a minute, or to what the server asks for.
    pub until: Moment,
    /// What the server said.
    pub message: String,
}

/// A worker's model server, as the worker last saw it. In its heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelServer {
    /// Which protocol it speaks.
    pub kind: ServerKind,
    /// Its address, as `http://127.0.0.1:11437`. Two workers with the same address on one host
    /// share one place for models.
    pub address: String,
    /// How it comes to hold a model.
    pub loads: Loads,
    /// What the latest looks and canaries say of it.
    pub health: Health,
    /// Since when that is so, by the worker's clock.
    pub health_since: Moment,
    /// What it said, or what went wrong, where it does not fare well.
    #[serde(default)]
    pub error: Option<String>,
    /// What it holds, or will in a moment; cleared when it goes down.
    #[serde(default)]
    pub models: Vec<HeldModel>,
    /// The models it could load. `None`: it has not said.
    #[serde(default)]
    pub known: Option<Vec<String>>,
    /// Loads that failed and were not followed by one that succeeded.
    #[serde(default)]
    pub failed_loads: Vec<FailedLoad>,
    /// Models that it has no time for now.
    #[serde(default)]
    pub busy: Vec<Busy>,
    /// When a model last answered one token, and how long that took.
    #[serde(default)]
    pub canary: Option<Canary>,
}

/// A request for one token: the only proof that a model works.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// When it was answered.
    pub at: Moment,
    /// How long that took, in seconds.
    pub seconds: f64,
}

impl ModelServer {
    /// What it holds under this name. Ollama leaves out the tag `latest`.
    #[must_use]
    pub fn held(&self, model: &str) -> Option<&HeldModel> {
        self.models.iter().find(|held| is_same_model(&held.model, model))
    }

    /// Whether this model can be asked now.
    #[must_use]
    pub fn has_loaded(&self, model: &str) -> bool {
        self.held(model).is_some_and(|held| held.state == HeldState::Loaded)
    }

    /// Whether it could have this model. `None`: it has not said.
    #[must_use]
    pub fn knows(&self, model: &str) -> Option<bool> {
        let known = self.known.as_ref()?;
        Some(known.iter().any(|known| is_same_model(known, model)))
    }

    /// What it said when it had no time for this model; `None` where that may be asked.
    #[must_use]
    pub fn busy_with(&self, model: &str) -> Option<&Busy> {
        self.busy.iter().find(|busy| is_same_model(&busy.model, model))
    }

    /// What it said when it had no time to load, or unload.
    #[must_use]
    pub fn busy_loading(&self) -> Option<&Busy> {
        self.busy.iter().find(|busy| !self.has_loaded(&busy.model))
    }

    /// The models that can be asked now.
    pub fn loaded(&self) -> impl Iterator<Item = &HeldModel> {
        self.models.iter().filter(|held| held.state == HeldState::Loaded)
    }
}

/// Whether two names mean one model: a name without a tag means the tag `latest`.
#[must_use]
pub fn is_same_model(one: &str, other: &str) -> bool {
    bare_name(one) == bare_name(other)
}

/// The one spelling of a model's name: without the tag that is meant anyway.
#[must_use]
pub fn bare_name(model: &str) -> &str {
    model.strip_suffix(":latest").unwrap_or(model)
}

/// A request in OpenAI's words, passed on as it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Where it goes: `/v1/chat/completions`, `/v1/completions` or `/v1/embeddings`.
    pub url: String,
    /// What is sent there.
    pub body: Map<String, Value>,
}

crate::outcome::words! {
    /// What an answer lacks.
    Flaw {
        /// It ended at its limit of tokens, or of the model's context.
        Cut = "cut",
        /// It has no text, and asks for nothing to be called: the tokens may have gone into thinking.
        Empty = "empty",
        /// The server kept it, or a part of it, back.
        Filtered = "filtered",
    }
}

impl Flaw {
    /// What a whole answer in OpenAI's words lacks; `None` where it lacks nothing. Of several choices
    /// the first that lacks something counts.
    #[must_use]
    pub fn of(body: &Value) -> Option<Self> {
        let choices = body.get("choices")?.as_array()?;
        choices.iter().find_map(Self::of_choice)
    }

    fn of_choice(choice: &Value) -> Option<Self> {
        let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.trim().is_empty());
        let message = choice.get("message");
        let own = |name: &str| message.and_then(|message| message.get(name));
        match choice.get("finish_reason").and_then(Value::as_str) {
            Some("length" | "max_tokens") => return Some(Self::Cut),
            Some("content_filter") => return Some(Self::Filtered),
            Some(_) | None => {}
        }
        if own("refusal").is_some_and(is_text) {
            return Some(Self::Filtered);
        }
        let calls = ["tool_calls", "function_call"];
        let calls = calls.iter().any(|name| own(name).is_some_and(|calls| !calls.is_null()));
        let said = own("content").or_else(|| choice.get("text"));
        // Content may be a list of parts.
        let says = said.is_some_and(|said| is_text(said) || said.is_array());
        (!says && !calls).then_some(Self::Empty)
    }

    /// What is said of an answer, as in `the answer was cut at its limit of tokens`.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Cut => "the answer was cut at its limit of tokens",
            Self::Empty => "the answer is empty",
            Self::Filtered => "the answer was filtered",
        }
    }
}

/// What a server answered that refused a request. In the ledger line of the attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The status of its answer, as 400.
    pub status: u16,
    /// The body, as JSON where it is that, else as a text; its beginning, where it is long.
    pub body: Value,
    /// After how many seconds it wants to be asked again, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

/// What a model answered. In the ledger line of the attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The model, as the server says it.
    pub model: String,
    /// The whole answer in OpenAI's words (`chat.completion`, `text_completion`, `list` of
    /// embeddings), whatever the server speaks.
    pub body: Value,
    /// Tokens of the question, by the server's count; `None` where it gave none.
    #[serde(default)]
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer, counted by the server, too.
    #[serde(default)]
    pub completion_tokens: Option<u64>,
    /// How long the server loaded the model for this request, in seconds. More than a moment
    /// means a reload that nobody asked for.
    #[serde(default)]
    pub load_seconds: Option<f64>,
    /// From the request to the first token, in seconds.
    #[serde(default)]
    pub first_token_seconds: Option<f64>,
    /// From the request to the end of the answer, in seconds.
    pub seconds: f64,
    /// How long the writing of these tokens took by the server's own measure, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writing_seconds: Option<f64>,
    /// What it lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flaw: Option<Flaw>,
}

/// An answer whose text came within this last part of its time came in one burst.
const BURST: f64 = 0.05;

impl Answer {
    /// How fast it wrote: by the server's own measure or, without one, tokens by the time from the
    /// first one to the end or, where that is not known, from the request to the end.
    #[must_use]
    pub fn tokens_per_second(&self) -> Option<f64> {
        let (tokens, seconds) = match (self.writing_seconds, self.first_token_seconds) {
            (Some(seconds), _) => (self.completion_tokens?, seconds),
            // What comes all at once, at the end, says nothing of how it was written.
            (None, Some(first)) if self.seconds - first >= BURST * self.seconds => {
                (self.completion_tokens?.checked_sub(1)?, self.seconds - first)
            }
            (None, _) => (self.completion_tokens?, self.seconds),
        };
        #[expect(clippy::cast_precision_loss, reason = "nobody counts 2^52 tokens")]
        let rate = tokens as f64 / seconds;
        (tokens > 0 && seconds > 0.0).then_some(rate)
    }

    /// The text of the answer; `None` for embeddings.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        let choice = self.body.get("choices")?.get(0)?;
        let message = choice.get("message").and_then(|message| message.get("content"));
        message.or_else(|| choice.get("text"))?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_means_the_latest() {
        assert!(is_same_model("tiny", "tiny:latest"));
        assert!(!is_same_model("tiny", "tiny:7b"));
    }

    fn answer(body: Value) -> Answer {
        Answer {
            model: "m".into(),
            body,
            prompt_tokens: None,
            completion_tokens: None,
            load_seconds: None,
            first_token_seconds: None,
            seconds: 1.0,
            writing_seconds: None,
            flaw: None,
        }
    }

    #[test]
    fn what_an_answer_lacks_is_told_apart() {
        let chat = |message: Value, finish: &str| serde_json::json!({"choices": [{"message": message, "finish_reason": finish}]});
        let text = |text: &str| serde_json::json!({"content": text});
        let calls = serde_json::json!({"content": null, "tool_calls": [{"id": "1"}]});
        let thinks = serde_json::json!({"content": "", "reasoning": "long"});
        let refuses = serde_json::json!({"content": null, "refusal": "no"});
        for (body, flaw) in [
            (chat(text("hi"), "stop"), None),
            (chat(text("hi"), "length"), Some(Flaw::Cut)),
            (chat(text(" \n"), "stop"), Some(Flaw::Empty)),
            (chat(thinks, "stop"), Some(Flaw::Empty)),
            (chat(calls, "tool_calls"), None),
            (chat(text("hi"), "content_filter"), Some(Flaw::Filtered)),
            (chat(refuses, "stop"), Some(Flaw::Filtered)),
            (serde_json::json!({"choices": [{"text": "ho", "finish_reason": "stop"}]}), None),
            (
                serde_json::json!({"choices": [{"text": "", "finish_reason": "stop"}]}),
                Some(Flaw::Empty),
            ),
            (serde_json::json!({"object": "list", "data": []}), None),
        ] {
            assert_eq!(Flaw::of(&body), flaw, "{body}");
        }
    }

    #[test]
    fn how_fast_it_wrote_is_known_where_tokens_were_counted() {
        let counted = Answer { completion_tokens: Some(11), ..answer(Value::Null) };
        assert_eq!(counted.tokens_per_second(), Some(11.0));
        let timed = Answer { first_token_seconds: Some(0.5), ..counted.clone() };
        assert_eq!(timed.tokens_per_second(), Some(20.0));
        let burst = Answer { first_token_seconds: Some(0.999), ..counted.clone() };
        assert_eq!(burst.tokens_per_second(), Some(11.0), "it came all at once");
        let measured = Answer { writing_seconds: Some(0.5), ..burst };
        assert_eq!(measured.tokens_per_second(), Some(22.0), "by the server's own measure");
        assert_eq!(answer(Value::Null).tokens_per_second(), None);
        let none = Answer { completion_tokens: Some(0), ..answer(Value::Null) };
        assert_eq!(none.tokens_per_second(), None);
    }

    #[test]
    fn the_text_of_an_answer_is_found_in_both_shapes() {
        let chat = serde_json::json!({"choices": [{"message": {"content": "hi"}}]});
        assert_eq!(answer(chat).text(), Some("hi"));
        let text = serde_json::json!({"choices": [{"text": "ho"}]});
        assert_eq!(answer(text).text(), Some("ho"));
        assert_eq!(answer(serde_json::json!({"data": []})).text(), None);
    }
}
