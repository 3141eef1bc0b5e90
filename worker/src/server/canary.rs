//! What a model is asked as a sign of life: one token, or an embedding where it gives no text.
//!
//! Some servers die when a model that only embeds is asked for text. So what proved to be alive is
//! asked the same the next time, and after a death at one kind the other one is asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use shared::llm::bare_name;
use shared::outcome::Cause;

use super::{Again, Failure};

/// A kind of canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One token of text.
    Text,
    /// The embedding of a text.
    Vector,
}

impl Kind {
    const fn other(self) -> Self {
        match self {
            Self::Text => Self::Vector,
            Self::Vector => Self::Text,
        }
    }

    /// As its name has it: most that only embed say so.
    fn by_name(model: &str) -> Self {
        if model.to_lowercase().contains("embed") { Self::Vector } else { Self::Text }
    }
}

/// What each model is asked, by its one spelling.
#[derive(Debug, Default)]
pub(super) struct Kinds(Mutex<BTreeMap<String, Known>>);

/// How sure it is that a model answers this kind.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// It has, or its server says so.
    Surely(Kind),
    /// It died at the other one.
    Perhaps(Kind),
}

impl Kinds {
    fn note(&self, model: &str, known: Known) {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.insert(bare_name(model).to_owned(), known);
    }

    fn known(&self, model: &str) -> Option<Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(bare_name(model)).copied()
    }

    /// What it is asked next.
    pub(super) fn of(&self, model: &str) -> Kind {
        match self.known(model) {
            Some(Known::Surely(kind) | Known::Perhaps(kind)) => kind,
            None => Kind::by_name(model),
        }
    }

    /// The model has answered this kind, or its server says that it would.
    pub(super) fn answers(&self, model: &str, kind: Kind) {
        self.note(model, Known::Surely(kind));
    }

    /// Asks a model for a sign of life, of the kind that it is known for.
    ///
    /// # Errors
    /// When it gives none. Where it does neither, what it says to the first kind.
    pub(super) fn prove(
        &self,
        model: &str,
        ask: impl Fn(Kind) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let kind = self.of(model);
        let Err(failure) = ask(kind) else {
            self.answers(model, kind);
            return Ok(());
        };
        if is_not_its_kind(&failure) {
            return match ask(kind.other()) {
                Ok(()) => {
                    self.answers(model, kind.other());
                    Ok(())
                }
                Err(other) => {
                    if is_death(&other) {
                        self.note(model, Known::Perhaps(kind));
                    }
                    Err(failure)
                }
            };
        }
        if is_death(&failure) && !matches!(self.known(model), Some(Known::Surely(_))) {
            self.note(model, Known::Perhaps(kind.other()));
        }
        Err(failure)
    }
}

/// Whether the server says that this cannot be asked of this model.
fn is_not_its_kind(failure: &Failure) -> bool {
    failure.again == Again::Never
        && !matches!(failure.cause, Cause::Unauthorized | Cause::ModelMissing)
}

/// Whether something went down with the request.
fn is_death(failure: &Failure) -> bool {
    failure.again == Again::Maybe && failure.cause != Cause::Timeout
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::models::fixture::failure;

    /// Which kinds are asked, where a model answers so.
    fn asked(
        kinds: &Kinds,
        model: &str,
        answer: impl Fn(Kind) -> Result<(), Failure>,
    ) -> (Result<(), Failure>, Vec<Kind>) {
        let asked = RefCell::new(Vec::new());
        let proved = kinds.prove(model, |kind| {
            asked.borrow_mut().push(kind);
            answer(kind)
        });
        (proved, asked.into_inner())
    }

    fn dies() -> Failure {
        failure(Cause::ServerError, Again::Maybe)
    }

    fn refuses() -> Failure {
        failure(Cause::ServerError, Again::Never)
    }

    use Kind::{Text, Vector};

    #[test]
    fn what_answers_one_kind_is_asked_that_kind() {
        let kinds = Kinds::default();
        let embeds = |kind| if kind == Vector { Ok(()) } else { Err(refuses()) };
        assert_eq!(asked(&kinds, "m", embeds), (Ok(()), vec![Text, Vector]));
        assert_eq!(asked(&kinds, "m", embeds), (Ok(()), vec![Vector]));
        assert_eq!(asked(&kinds, "nomic-Embed-text", embeds), (Ok(()), vec![Vector]));
        let neither = |_kind| Err(refuses());
        assert_eq!(asked(&kinds, "x", neither), (Err(refuses()), vec![Text, Vector]));
    }

    #[test]
    fn after_a_death_at_one_kind_the_other_is_asked() {
        let kinds = Kinds::default();
        let embeds = |kind| if kind == Vector { Ok(()) } else { Err(dies()) };
        assert_eq!(asked(&kinds, "m", embeds), (Err(dies()), vec![Text]));
        assert_eq!(asked(&kinds, "m", embeds), (Ok(()), vec![Vector]));
        // It has embedded: a death later on is none of that kind's.
        assert_eq!(asked(&kinds, "m", |_kind| Err(dies())), (Err(dies()), vec![Vector]));
        assert_eq!(asked(&kinds, "m", embeds), (Ok(()), vec![Vector]));
    }

    #[test]
    fn a_model_that_died_by_accident_and_embeds_nothing_is_asked_for_text_again() {
        let kinds = Kinds::default();
        assert_eq!(asked(&kinds, "m", |_kind| Err(dies())).1, [Text]);
        let writes = |kind| if kind == Text { Ok(()) } else { Err(refuses()) };
        assert_eq!(asked(&kinds, "m", writes), (Ok(()), vec![Vector, Text]));
        assert_eq!(asked(&kinds, "m", writes), (Ok(()), vec![Text]));
    }
}
