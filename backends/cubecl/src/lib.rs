//! What burnmark's adapters for CubeCL devices share: settings, memory pools, names, the card behind them.

mod card;
mod store;
mod tuning;

use burn::BurnConfig;
use burn::tensor::Device;
use burnmark_backend_api::{
    Autotune, Capabilities, FoundDevice, MemoryReading, MemorySources, Setup, has_clock, supported_dtypes,
};
use cubecl::config::CubeClRuntimeConfig;
use cubecl::config::autotune::AutotuneLevel;
use cubecl_environment::config::RuntimeConfig;
use cubecl_environment::persistence::CacheConfig;

pub use card::{card, driver};
pub use store::Store;
pub use tuning::{Launches, record_tuning};

/// What every CubeCL device can do.
pub const CAPABILITIES: Capabilities =
    Capabilities { fusion: true, autotune: true, graph_capture: false, tf32: false, mixed: false, synchronous: false };

/// Puts a setup into effect for the whole process; a configuration that was read before stays as it is.
pub fn configure(setup: &Setup) {
    let burn: BurnConfig = if setup.fusion {
        BurnConfig::default()
    } else {
        // No exploration: every operation stays a kernel of its own.
        serde_json::from_value(serde_json::json!({ "fusion": { "beam_search": { "max_explorations": 0 } } }))
            .expect("a key of Burn's configuration")
    };
    let mut cube = CubeClRuntimeConfig::default();
    cube.autotune.level = match setup.autotune {
        Autotune::Minimal => AutotuneLevel::Minimal,
        Autotune::Balanced => AutotuneLevel::Balanced,
        Autotune::Full => AutotuneLevel::Full,
    };
    cube.autotune.disable_cache = !setup.keep_answers;
    cube.compilation.cache = setup.keep_answers;
    if let Some(folder) = &setup.cache {
        cube.environment.path = CacheConfig::Directory(folder.clone());
    }
    if !BurnConfig::try_set(burn) || !CubeClRuntimeConfig::try_set(cube) {
        tracing::warn!("fusion and autotune were configured before; their settings stay");
    }
}

/// A device as it tells of itself; opens it.
#[must_use]
pub fn found(device: String, handle: &Device) -> FoundDevice {
    let identity = handle.identity();
    FoundDevice {
        device,
        name: device_name(handle),
        driver: identity.map(|identity| identity.fingerprint),
        memory_bytes: None,
        dtypes: supported_dtypes(handle),
        device_clock: has_clock(handle),
    }
}

/// What the driver calls the device.
#[must_use]
pub fn device_name(handle: &Device) -> String {
    handle.identity().map_or_else(|| "device of unknown name".to_owned(), |identity| identity.name)
}

/// Where the figures of [`memory`] come from.
pub const MEMORY_SOURCES: MemorySources = MemorySources {
    in_use: "device memory pools",
    peak: "pages of the device memory pools",
    reserved: "pages of the device memory pools",
};

/// Memory of the device's pools. Pages stay reserved until they are released, so what is reserved at the end of a
/// workload that began with a release is the most it ever needed: that is its peak.
#[must_use]
pub fn memory(handle: &Device) -> MemoryReading {
    let usage = handle.memory_pool_usage().ok_or_else(|| "the device does not report its pools".to_owned());
    MemoryReading {
        current: usage.clone().map(|usage| usage.bytes_in_use),
        peak: usage.clone().map(|usage| usage.bytes_reserved),
        padding: usage.as_ref().ok().map(|usage| usage.bytes_padding),
        reserved: usage.map(|usage| usage.bytes_reserved),
    }
}

/// Returns unused pages to the driver.
pub fn release(handle: &Device) {
    handle.memory_cleanup();
    if let Err(error) = handle.sync() {
        tracing::warn!("the device failed while it released memory: {error}");
    }
}
