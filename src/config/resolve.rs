use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::keys::KEYS;
use super::{ConfigError, Experiment, Fault, Flags, file, validate};

/// A valid experiment and where its values came from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The experiment.
    pub experiment: Experiment,
    /// By key: `FILE:LINE` or a flag. What is not here is a default.
    pub origins: BTreeMap<String, String>,
}

/// Lays file and flags over the defaults and checks the whole.
pub fn load(path: Option<&Path>, flags: &Flags) -> Result<Resolved, ConfigError> {
    let (entries, faults) = path.map_or_else(|| Ok((Vec::new(), Vec::new())), file::read)?;
    let name = path.map(|path| path.display().to_string()).unwrap_or_default();
    resolve(&name, entries, faults, flags)
}

pub(super) fn resolve(
    name: &str,
    entries: Vec<file::Entry>,
    mut faults: Vec<Fault>,
    flags: &Flags,
) -> Result<Resolved, ConfigError> {
    let mut tree = serde_json::to_value(Experiment::default()).expect("the default experiment serialises");
    let (mut places, mut origins) = (BTreeMap::new(), BTreeMap::new());
    for entry in entries {
        origins.insert(entry.path.clone(), format!("{name}:{}", entry.line));
        *at_path(&mut tree, &entry.path) = entry.value;
        places.insert(entry.path, entry.place);
    }
    match flags.settings() {
        Err(fault) => faults.push(fault),
        Ok(settings) => {
            for (path, flag, value) in settings {
                let key = KEYS.iter().find(|key| key.path == path).expect("flags set keys of the table");
                if !key.kind.accepts(&value) {
                    let message = format!("{value} is not allowed; allowed is {}", key.kind.allowed());
                    faults.push(Fault { place: flag.to_owned(), message });
                    continue;
                }
                *at_path(&mut tree, path) = value;
                origins.insert(path.to_owned(), flag.to_owned());
                places.insert(path.to_owned(), flag.to_owned());
            }
        }
    }
    let experiment: Experiment = serde_json::from_value(tree).expect("the table of keys admits what the type holds");
    faults.extend(validate::faults(&experiment).into_iter().map(|(keys, message)| {
        let place = keys.iter().find_map(|key| places.get(*key)).cloned().unwrap_or_else(|| "default".to_owned());
        Fault { place, message }
    }));
    if faults.is_empty() { Ok(Resolved { experiment, origins }) } else { Err(ConfigError::Faults(faults)) }
}

/// The value at a dotted path.
pub(super) fn at_path<'a>(tree: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').fold(tree, |tree, name| &mut tree[name])
}
