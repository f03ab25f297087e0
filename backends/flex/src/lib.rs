//! flex
