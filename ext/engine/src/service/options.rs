//! Options of a call: one JSON object, whose names are those of a type.

use serde::de::DeserializeOwned;
use serde::Serialize;

use crate::error::{Error, Result};

/// Reads them; without any text they are the defaults. An error lists the names that there are.
pub fn options<T: DeserializeOwned + Serialize + Default>(json: Option<&str>) -> Result<T> {
    let Some(json) = json else { return Ok(T::default()) };
    serde_json::from_str(json).map_err(|e| {
        // Whatever can be read can be written, so the names are these.
        let names = match serde_json::to_value(T::default()) {
            Ok(serde_json::Value::Object(names)) => names.keys().cloned().collect::<Vec<_>>().join(", "),
            _ => String::new(),
        };
        Error::fix(
            format!("the options {json:?} cannot be used: {e}"),
            format!("nothing was changed; give one JSON object with any of these names: {names}"),
        )
    })
}
