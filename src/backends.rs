//! The backends compiled into this program, best first.

use burn::tensor::Device;
use burnmark_backend_api::Backend;

use crate::spec::{Failure, FailureKind};

/// Every backend of this build; the first is the one used when none is named.
#[must_use]
pub fn compiled() -> Vec<&'static dyn Backend> {
    vec![
        #[cfg(feature = "flex")]
        &burnmark_backend_flex::Flex,
    ]
}

/// Names of [`compiled`] backends.
#[must_use]
pub fn names() -> Vec<String> {
    compiled().iter().map(|backend| backend.name().to_owned()).collect()
}

/// Cargo features of this build that decide what is measured.
#[must_use]
pub fn features() -> Vec<String> {
    let known = [("flex", cfg!(feature = "flex"))];
    known.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.to_owned()).collect()
}

/// Opens what a specification such as `flex` or `cuda:0` names.
pub fn open(specification: &str) -> Result<(&'static dyn Backend, Device), Failure> {
    let (name, device) = specification.split_once(':').unwrap_or((specification, ""));
    let unsupported = |message: String| Failure::new(FailureKind::Unsupported, message);
    let backend = compiled().into_iter().find(|backend| backend.name() == name).ok_or_else(|| {
        unsupported(format!(
            "backend `{name}` is not compiled in (this program has: {}); build it with `cargo run --release --features {name}`",
            names().join(", ")
        ))
    })?;
    let device = backend.open(device).map_err(|error| unsupported(error.to_string()))?;
    Ok((backend, device))
}
