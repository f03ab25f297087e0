use serde_json::{Map, Value, json};

use super::keys::{EXCLUDE_KEYS, KEYS, Key};
use super::resolve::at_path;
use super::{Experiment, Resolved};

/// The effective experiment as an experiment file, each value with where it came from.
#[must_use]
pub fn show(resolved: &Resolved) -> String {
    let mut tree = serde_json::to_value(&resolved.experiment).expect("an experiment serialises");
    let origin = |path: &str| resolved.origins.get(path).map_or("default", String::as_str).to_owned();
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut section = "";
    for key in KEYS {
        let (next, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if next != section {
            lines.push((format!("\n[{next}]"), String::new()));
            section = next;
        }
        match at_path(&mut tree, key.path) {
            Value::Null => lines.push((format!("# {name} is not set"), origin(key.path))),
            value => lines.push((format!("{name} = {}", literal(value)), origin(key.path))),
        }
    }
    for exclude in tree.get("exclude").and_then(Value::as_array).into_iter().flatten() {
        lines.push(("\n[[exclude]]".to_owned(), String::new()));
        for (name, value) in exclude.as_object().into_iter().flatten() {
            lines.push((format!("{name} = {}", literal(value)), origin("exclude")));
        }
    }
    let width = lines.iter().map(|(text, _)| text.chars().count()).max().unwrap_or(0).min(60);
    lines.iter().fold(String::new(), |mut output, (text, origin)| {
        let line = if origin.is_empty() { text.clone() } else { format!("{text:<width$}  # {origin}") };
        output.push_str(&line);
        output.push('\n');
        output
    })
}

/// A value as TOML writes it.
fn literal(value: &Value) -> String {
    match value {
        // Small floats would be written without a point or exponent otherwise.
        Value::Number(number) if number.is_f64() => format!("{:?}", number.as_f64().unwrap_or_default()),
        Value::Array(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::String(text) => toml::Value::from(text.as_str()).to_string(),
        other => other.to_string(),
    }
}

/// JSON Schema (draft 2020-12) of experiment files, for editors.
#[must_use]
pub fn schema() -> Value {
    let mut defaults = serde_json::to_value(Experiment::default()).expect("the default experiment serialises");
    let mut root = Map::new();
    for key in KEYS {
        let property = property(key, Some(at_path(&mut defaults, key.path).clone()));
        match key.path.split_once('.') {
            None => {
                root.insert(key.path.to_owned(), property);
            }
            Some((section, name)) => {
                let empty = || json!({"type": "object", "additionalProperties": false, "properties": {}});
                root.entry(section).or_insert_with(empty)["properties"][name] = property;
            }
        }
    }
    let entry: Map<String, Value> = EXCLUDE_KEYS.iter().map(|key| (key.path.to_owned(), property(key, None))).collect();
    root.insert(
        "exclude".to_owned(),
        json!({
            "type": "array",
            "description": "Cells that match every axis named in an entry are left out.",
            "items": {"type": "object", "additionalProperties": false, "minProperties": 1, "properties": entry},
        }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "burnmark experiment",
        "type": "object",
        "additionalProperties": false,
        "properties": root,
    })
}

fn property(key: &Key, default: Option<Value>) -> Value {
    let mut schema = key.kind.schema();
    schema["description"] = Value::from(key.meaning);
    if let Some(default) = default.filter(|_| !key.optional) {
        schema["default"] = default;
    }
    schema
}
