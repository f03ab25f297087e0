use thiserror::Error;

/// Why an experiment cannot be planned on this program.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// A backend exists but is not part of this build.
    #[error(
        "backend `{name}` is not compiled in; this program has: {compiled}. Build it with `cargo run --release --features {name}`"
    )]
    NotCompiled {
        /// Asked for.
        name: String,
        /// Compiled in.
        compiled: String,
    },
    /// No backend of that name exists.
    #[error("there is no backend `{name}`{hint}; this program has: {compiled}")]
    UnknownBackend {
        /// Asked for.
        name: String,
        /// A close name.
        hint: String,
        /// Compiled in.
        compiled: String,
    },
    /// The program was built without any backend.
    #[error("no backend is compiled in; build with `cargo run --release --features flex`")]
    NoBackend,
    /// No model family of that name.
    #[error("there is no model family `{name}`{hint}; there are: {known}")]
    UnknownFamily {
        /// Asked for.
        name: String,
        /// A close name.
        hint: String,
        /// Registered.
        known: String,
    },
    /// The family has no variant of that name.
    #[error("model family `{family}` has no variant `{name}`{hint}; it has: {known}")]
    UnknownVariant {
        /// The family.
        family: String,
        /// Asked for.
        name: String,
        /// A close name.
        hint: String,
        /// Its variants.
        known: String,
    },
    /// An exclusion that changes nothing is a mistake.
    #[error("[[exclude]] entry {number} ({text}) matches no cell; check its values against the axes")]
    UselessExclusion {
        /// Counted from 1.
        number: usize,
        /// The entry.
        text: String,
    },
    /// Everything was excluded.
    #[error("every cell is excluded; nothing is left to run")]
    Empty,
}
