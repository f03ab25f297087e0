use burnmark_backend_api::CardState;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A window of time in which something else disturbed the samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Disturbance {
    /// When it began, on the time axis of the samples.
    pub at_ns: u64,
    /// When it ended.
    pub until_ns: u64,
    /// What it was, in words.
    pub causes: Vec<String>,
    /// Wall clock of the samples taken in it.
    pub samples_ns: Vec<u64>,
    /// Whether they were thrown out and taken again; otherwise they are among the samples.
    pub redone: bool,
}

/// A graphics card at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CardReading {
    /// When, on the time axis of the samples.
    pub at_ns: u64,
    /// What it told.
    pub state: CardState,
}
