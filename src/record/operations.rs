use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Origin, PeaksRecord};
use crate::spec::{Applied, DeviceReport, Failure, OperationObservation, OperationsSpec, Peaks};

/// Operations measured by one child at one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationsRecord {
    /// What was asked for.
    pub spec: OperationsSpec,
    /// The device, if it was opened.
    pub device: Option<DeviceReport>,
    /// What of the request was put into effect, if the device was opened.
    pub applied: Option<Applied>,
    /// What the device can do at most, if that was measured.
    pub peaks: Option<Peaks>,
    /// Raw.
    pub observations: Vec<OperationObservation>,
    /// Why something is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// The results file of `burnmark ops`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationsResults {
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// What the devices can do at most, with where that comes from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peaks: Vec<PeaksRecord>,
    /// One entry a backend and size.
    pub records: Vec<OperationsRecord>,
}

impl OperationsResults {
    /// Whether every operation was measured and computes what its reference does.
    pub fn complete(&self) -> bool {
        self.records.iter().all(|record| record.failure.is_none())
    }

    /// Whether every operation that was measured computes what its reference does.
    pub fn agrees(&self) -> bool {
        self.records.iter().flat_map(|record| &record.observations).all(OperationObservation::agrees)
    }
}
