//! Who was asked to load a model that is not loaded.

use serde_json::json;
use shared::reason::{Code, Reason};

use super::Look;
use crate::Error;
use crate::dir::find::load_requests;

/// Adds who was asked to load what is not loaded.
pub(super) fn tell_loads(look: &Look<'_>, reasons: &mut [Reason]) -> Result<(), Error> {
    if !reasons.iter().any(|reason| reason.code == Code::ModelNotLoaded) {
        return Ok(());
    }
    load_requests::tell(reasons, look.loads()?, look.view.at);
    for reason in reasons.iter_mut().filter(|reason| reason.code == Code::ModelNotLoaded) {
        if !reason.evidence.contains_key("asked_of") && !look.view.brain.alive {
            let after = look.settings.self_load_after;
            reason.evidence.insert("asked_of".to_owned(), json!(null));
            reason.text += &format!(
                "; nobody was asked to load it, and no brain is running: an idle worker loads it \
                 by itself after {after}"
            );
            reason.fix = Some(look.view.start_of_brain());
        }
    }
    Ok(())
}
