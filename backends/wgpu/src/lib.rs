//! burnmark's adapter for Burn's wgpu backend: Vulkan, Metal, or whatever graphics interface the machine has.

use burn::tensor::{Device, DeviceType};
use burnmark_backend_api::{
    Backend, Capabilities, CardState, FoundDevice, LaunchWatch, MemoryReading, MemorySources, OpenError, Origin, Setup,
    TuningStore,
};
use burnmark_backend_cubecl as cube;

/// One graphics interface. Its devices are numbered as it lists them, discrete graphics processors first.
pub struct Wgpu {
    name: &'static str,
    interface: DeviceType,
    remedy: &'static str,
}

/// Whatever interface the platform prefers.
pub static WGPU: Wgpu = Wgpu {
    name: "wgpu",
    interface: DeviceType::Wgpu,
    remedy: "install a Vulkan or Metal driver for the graphics processor",
};

/// Vulkan, with kernels as SPIR-V.
#[cfg(feature = "vulkan")]
pub static VULKAN: Wgpu = Wgpu {
    name: "vulkan",
    interface: DeviceType::Vulkan,
    remedy: "install a Vulkan driver (on Debian: `apt install mesa-vulkan-drivers libvulkan1`, or the one of the \
             graphics processor's vendor) and check it with `vulkaninfo`; scripts/vulkan-on-cpu.sh installs one that \
             runs on the processor",
};

/// Metal, with kernels as MSL.
#[cfg(feature = "metal")]
pub static METAL: Wgpu =
    Wgpu { name: "metal", interface: DeviceType::Metal, remedy: "Metal needs macOS on Apple hardware" };

impl Wgpu {
    fn list(&self) -> Vec<Device> {
        Device::enumerate(self.interface.clone()).into_iter().collect()
    }
}

impl Backend for Wgpu {
    fn name(&self) -> &'static str {
        self.name
    }

    fn remedy(&self) -> &'static str {
        self.remedy
    }

    fn lacks(&self) -> &'static str {
        "CubeCL records graphs on CUDA alone; a driver without timestamps leaves the host's clock"
    }

    fn devices(&self) -> Result<Vec<FoundDevice>, String> {
        let named = |(index, device): (usize, &Device)| cube::found(format!("{}:{index}", self.name), device);
        Ok(self.list().iter().enumerate().map(named).collect())
    }

    fn configure(&self, setup: &Setup) {
        cube::configure(setup);
    }

    fn record_tuning(&self) -> Option<Origin> {
        Some(cube::record_tuning())
    }

    fn tuning_store(&self) -> Option<&'static dyn TuningStore> {
        Some(&cube::Store)
    }

    fn watch_launches(&self) -> Option<Box<dyn LaunchWatch>> {
        Some(Box::new(cube::Launches::new()))
    }

    fn card(&self, device: &Device) -> Option<Result<CardState, String>> {
        cube::card(device)
    }

    fn open(&self, device: &str) -> Result<Device, OpenError> {
        let found = self.list();
        if found.is_empty() {
            return Err(OpenError::Unavailable {
                backend: self.name,
                device: device.to_owned(),
                reason: "no driver offers a device".to_owned(),
                remedy: self.remedy,
            });
        }
        let index = if device.is_empty() { Some(0) } else { device.parse().ok() };
        index.and_then(|index: usize| found.get(index)).cloned().ok_or_else(|| OpenError::UnknownDevice {
            backend: self.name,
            device: device.to_owned(),
            known: (0..found.len()).map(|index| index.to_string()).collect::<Vec<_>>().join(", "),
        })
    }

    fn device_name(&self, device: &Device) -> String {
        cube::device_name(device)
    }

    fn driver(&self, device: &Device) -> Option<String> {
        cube::driver(device)
    }

    fn threads(&self) -> Option<usize> {
        None
    }

    fn capabilities(&self) -> Capabilities {
        cube::CAPABILITIES
    }

    fn memory_sources(&self) -> MemorySources {
        cube::MEMORY_SOURCES
    }

    fn memory(&self, device: &Device) -> MemoryReading {
        cube::memory(device)
    }

    fn reset_peak(&self, _: &Device) {}

    fn release(&self, device: &Device) {
        cube::release(device);
    }
}
