use clap::ValueEnum;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::{FitResults, OperationsResults, PeaksResults, Results, VerificationResults};

/// A kind of file that this program writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// Results of a run.
    #[default]
    Results,
    /// Results of `ops`.
    Ops,
    /// Results of `fit`.
    Fit,
    /// Results of `peaks`.
    Peaks,
    /// Results of `verify`.
    Verify,
}

impl Layout {
    /// Its JSON Schema, generated from the types.
    #[must_use]
    pub fn schema(self) -> Value {
        match self {
            Self::Results => schema::<Results>(),
            Self::Fit => schema::<FitResults>(),
            Self::Peaks => schema::<PeaksResults>(),
            Self::Ops => schema::<OperationsResults>(),
            Self::Verify => schema::<VerificationResults>(),
        }
    }
}

fn schema<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>().to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schemas_are_what_the_types_give() {
        for layout in Layout::value_variants() {
            let name = layout.to_possible_value().expect("no variant is hidden").get_name().to_owned();
            let path = format!("{}/docs/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
            let published = std::fs::read_to_string(&path).unwrap_or_default();
            let generated = serde_json::to_string_pretty(&layout.schema()).expect("it serialises") + "\n";
            assert!(published == generated, "run `cargo run --release -- schema {name} > docs/{name}.schema.json`");
        }
    }
}
