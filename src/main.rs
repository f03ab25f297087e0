//! The `burnmark` program: the library's application with the built-in models.

use std::process::ExitCode;

#[global_allocator]
static HEAP: burnmark::CountingAllocator = burnmark::CountingAllocator;

fn main() -> ExitCode {
    burnmark::app::main(&burnmark::model::Registry::default())
}
