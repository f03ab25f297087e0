//! The state of an NVIDIA card, from NVIDIA's management library.

use std::sync::OnceLock;

use burn::tensor::{Device, PciVendor, PhysicalDevice};
use burnmark_backend_api::CardState;
use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::error::NvmlError;

/// The library, loaded once: that takes long.
static NVML: OnceLock<Result<Nvml, String>> = OnceLock::new();

/// A card's lower clock that is no disturbance: its steady state under load, or its setting.
const LIMITS: [(ThrottleReasons, &str); 5] = [
    (ThrottleReasons::GPU_IDLE, "idle"),
    (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, "application clocks"),
    (ThrottleReasons::DISPLAY_CLOCK_SETTING, "display clocks"),
    (ThrottleReasons::SYNC_BOOST, "sync boost"),
    (ThrottleReasons::SW_POWER_CAP, "software power cap"),
];

/// One that is.
const SLOWDOWNS: [(ThrottleReasons, &str); 4] = [
    (ThrottleReasons::SW_THERMAL_SLOWDOWN, "software thermal slowdown"),
    (ThrottleReasons::HW_THERMAL_SLOWDOWN, "hardware thermal slowdown"),
    (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "hardware power brake"),
    (ThrottleReasons::HW_SLOWDOWN, "hardware slowdown"),
];

/// What the card behind a device tells of itself, or why it does not; `None` for what is no NVIDIA card.
#[must_use]
pub fn card(device: &Device) -> Option<Result<CardState, String>> {
    Some(match nvidia(device)?.pci_address {
        Some(address) => state(&address.to_string()),
        None => Err("the driver does not tell the card's address on its bus".to_owned()),
    })
}

/// The driver of the NVIDIA card behind a device, with its version.
#[must_use]
pub fn driver(device: &Device) -> Option<String> {
    nvidia(device)?;
    let version = library().ok()?.sys_driver_version().ok()?;
    Some(format!("NVIDIA driver {version}"))
}

fn nvidia(device: &Device) -> Option<PhysicalDevice> {
    device.identity()?.physical.filter(|card| card.vendor == Some(PciVendor::Nvidia))
}

fn library() -> Result<&'static Nvml, String> {
    NVML.get_or_init(|| Nvml::init().map_err(told)).as_ref().map_err(Clone::clone)
}

fn state(pci_address: &str) -> Result<CardState, String> {
    read(library()?, pci_address).map_err(told)
}

fn told(error: NvmlError) -> String {
    format!("NVIDIA's management library: {error}")
}

fn read(nvml: &Nvml, pci_address: &str) -> Result<CardState, NvmlError> {
    let card = nvml.device_by_pci_bus_id(pci_address)?;
    let reasons = card.current_throttle_reasons()?;
    let among = |known: &[(ThrottleReasons, &str)]| {
        known.iter().filter(|(reason, _)| reasons.contains(*reason)).map(|(_, words)| (*words).to_owned()).collect()
    };
    Ok(CardState {
        sm_clock_mhz: card.clock_info(Clock::SM)?,
        temperature_c: card.temperature(TemperatureSensor::Gpu)?,
        power_w: card.power_usage().ok().map(|milliwatts| (milliwatts + 500) / 1000),
        limits: among(&LIMITS),
        slowdowns: among(&SLOWDOWNS),
        processes: card.running_compute_processes()?.len() as u32,
    })
}
