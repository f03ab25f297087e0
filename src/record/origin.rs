use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Environment;

/// Where a file of `ops`, `fit`, `peaks` or `verify` comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Origin {
    /// Version of this layout.
    #[schemars(extend("const" = 1))]
    pub schema_version: u32,
    /// When it was begun, in UTC.
    pub timestamp: String,
    /// The command line.
    pub command: Vec<String>,
    /// Where and with what it was made.
    pub environment: Environment,
}

impl Origin {
    /// This process, now; `features` are the cargo features of the build.
    pub fn here(features: Vec<String>) -> Self {
        Self {
            schema_version: 1,
            timestamp: jiff::Timestamp::now().to_string(),
            command: std::env::args().collect(),
            environment: Environment::read(features),
        }
    }
}
