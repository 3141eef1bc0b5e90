//! What to ask a model.

use serde::{Deserialize, Serialize};

use crate::llm::Request;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// What to ask a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Prompt<'a> {
    /// One text: `prompt` of a spec.
    Text(&'a str),
    /// A conversation: `messages` of a spec.
    Messages(&'a [Message]),
    /// A request in OpenAI's words.
    Request(&'a Request),
}
