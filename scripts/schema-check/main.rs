//! `burnmark-schema-check SCHEMA FILE…`: prints where a file breaks the schema and fails if one does.

use std::process::ExitCode;

use serde_json::Value;

/// Faults shown of one file.
const SHOWN: usize = 5;

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let [schema, files @ ..] = files.as_slice() else {
        eprintln!("usage: burnmark-schema-check SCHEMA FILE…");
        return ExitCode::from(2);
    };
    let validator = jsonschema::draft202012::options().should_validate_formats(false);
    let validator = validator.build(&read(schema)).expect("the schema is one");
    let mut broken = 0;
    for file in files {
        let content = read(file);
        let faults: Vec<_> = validator.iter_errors(&content).take(SHOWN).collect();
        broken += usize::from(!faults.is_empty());
        for fault in faults {
            eprintln!("{file}: {}: {fault:.200}", fault.instance_path());
        }
    }
    eprintln!("{} of {} files are as {schema} says", files.len() - broken, files.len());
    ExitCode::from(u8::from(broken > 0 || files.is_empty()))
}

fn read(path: &str) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("`{path}`: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("`{path}`: {error}"))
}
