use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a graphics card tells of itself at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CardState {
    /// Clock of its multiprocessors, in MHz.
    pub sm_clock_mhz: u32,
    /// Temperature in degrees Celsius.
    pub temperature_c: u32,
    /// Power it draws, in watts, where it tells.
    pub power_w: Option<u32>,
    /// What holds the clock down as a matter of course, such as the power cap, in words.
    pub limits: Vec<String>,
    /// What holds it down beyond that, heat above all, in words.
    pub slowdowns: Vec<String>,
    /// Processes that compute on it, this one included.
    pub processes: u32,
}
