use std::path::Path;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{EXCLUDE_KEYS, KEYS, Key, nearest};
use super::{ConfigError, Fault};

/// A key of the file with its value, checked for kind and bounds alone.
#[derive(Debug)]
pub(super) struct Entry {
    pub path: String,
    pub place: String,
    pub line: usize,
    pub value: Value,
}

/// Reads a file's keys; every fault in it is reported.
pub(super) fn read(path: &Path) -> Result<(Vec<Entry>, Vec<Fault>), ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|error| {
        unreadable(match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file; `configs/` holds some to start from".to_owned(),
            std::io::ErrorKind::IsADirectory => "it is a folder; name a file in it".to_owned(),
            _ => error.to_string(),
        })
    })?;
    let text = String::from_utf8(bytes)
        .map_err(|error| unreadable(format!("it is not UTF-8 text (byte {})", error.utf8_error().valid_up_to())))?;
    Ok(parse(&path.display().to_string(), &text))
}

pub(super) fn parse(name: &str, text: &str) -> (Vec<Entry>, Vec<Fault>) {
    let mut reader = Reader { name, text, entries: Vec::new(), faults: Vec::new() };
    match DeTable::parse(text) {
        Ok(table) => reader.table("", table.get_ref()),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            reader.fault(at, error.message().to_owned());
        }
    }
    // Tables come back sorted by name; people read from the top.
    reader.faults.sort_by_key(|(byte, _)| *byte);
    (reader.entries, reader.faults.into_iter().map(|(_, fault)| fault).collect())
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    entries: Vec<Entry>,
    faults: Vec<(usize, Fault)>,
}

impl Reader<'_> {
    /// Line and column of a byte, from 1.
    fn position(&self, byte: usize) -> (usize, usize) {
        let before = &self.text[..byte.min(self.text.len())];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    fn place(&self, byte: usize) -> String {
        let (line, column) = self.position(byte);
        format!("{}:{line}:{column}", self.name)
    }

    fn fault(&mut self, byte: usize, message: String) {
        self.faults.push((byte, Fault { place: self.place(byte), message }));
    }

    fn table(&mut self, prefix: &str, table: &DeTable) {
        for (name, value) in table {
            let path =
                if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            let section = KEYS.iter().any(|key| key.path.starts_with(&format!("{path}.")));
            match value.get_ref() {
                _ if path == "exclude" => self.exclusions(value),
                DeValue::Table(inner) if section => self.table(&path, inner),
                other if section => {
                    let message = format!("`{path}` is {}; allowed is a section `[{path}]`", described(other));
                    self.fault(name.span().start, message);
                }
                _ => self.entry(&path, name.span().start, value, KEYS),
            }
        }
    }

    fn entry(&mut self, path: &str, at: usize, value: &Spanned<DeValue>, keys: &[Key]) {
        let Some(key) = keys.iter().find(|key| key.path == path) else {
            let near = nearest(path, keys.iter().map(|key| key.path));
            let hint = near.map_or_else(
                || "`burnmark config show` lists the keys".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            return self.fault(at, format!("unknown key `{path}`; {hint}"));
        };
        let found = plain(value.get_ref());
        if !key.kind.accepts(&found) {
            let near = key.kind.nearest(&found).map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
            let twice = repeated(&found).map_or(String::new(), |value| format!(" ({value} stands twice)"));
            let (found, allowed) = (described(value.get_ref()), key.kind.allowed());
            return self.fault(value.span().start, format!("`{path}` is {found}{twice}; allowed is {allowed}{near}"));
        }
        let (line, _) = self.position(value.span().start);
        self.entries.push(Entry { path: path.to_owned(), place: self.place(value.span().start), line, value: found });
    }

    /// `[[exclude]]`, whose entries have keys of their own.
    fn exclusions(&mut self, value: &Spanned<DeValue>) {
        let tables: Option<Vec<_>> = value.get_ref().as_array().map(|items| {
            items.iter().filter_map(|item| Some((item.span().start, item.get_ref().as_table()?))).collect()
        });
        let Some(tables) = tables.filter(|tables| !tables.is_empty()) else {
            return self.fault(value.span().start, "`exclude` must be written as `[[exclude]]` sections".to_owned());
        };
        let outer = std::mem::take(&mut self.entries);
        let mut list = Vec::new();
        for (at, table) in tables {
            for (name, value) in table {
                self.entry(name.get_ref(), name.span().start, value, EXCLUDE_KEYS);
            }
            if table.is_empty() {
                self.fault(at, "an empty `[[exclude]]` would leave out every cell; name at least one axis".to_owned());
            }
            let object = std::mem::take(&mut self.entries).into_iter().map(|entry| (entry.path, entry.value));
            list.push(Value::Object(object.collect()));
        }
        self.entries = outer;
        let (line, _) = self.position(value.span().start);
        let place = self.place(value.span().start);
        self.entries.push(Entry { path: "exclude".to_owned(), place, line, value: Value::Array(list) });
    }
}

/// The value without its place; what no key may hold becomes null.
fn plain(value: &DeValue) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Null, Value::from)
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or(Value::Null, Value::from),
        DeValue::Boolean(value) => Value::from(*value),
        DeValue::Array(items) => items.iter().map(|item| plain(item.get_ref())).collect(),
        DeValue::Datetime(_) | DeValue::Table(_) => Value::Null,
    }
}

fn repeated(value: &Value) -> Option<&Value> {
    let values = value.as_array()?;
    values.iter().enumerate().find(|(i, value)| values[..*i].contains(value)).map(|(_, value)| value)
}

/// What was found, in words.
fn described(value: &DeValue) -> String {
    match value {
        DeValue::String(text) => format!("the text {:?}", text.as_ref()),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Array(_) => format!("the list {}", plain(value)),
        DeValue::Datetime(value) => format!("the date {value}"),
        DeValue::Table(_) => "a section".to_owned(),
    }
}
