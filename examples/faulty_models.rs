//! Models that misbehave, for the tests of what a run makes of them: each variant of the family `faulty` is a fault.

use std::process::ExitCode;
use std::time::Duration;

use burnmark::model::{BuildError, BuildRequest, Family, Model, Registry};

#[global_allocator]
static HEAP: burnmark::CountingAllocator = burnmark::CountingAllocator;

fn main() -> ExitCode {
    let variants =
        ["sound", "same", "panic", "abort", "killed", "hang", "hang-later", "allocate", "print", "wrong", "late-panic"];
    burnmark::app::main(&Registry::default().with(Family::new("faulty", &variants, build)))
}

/// Leaves a file that tells that it hangs.
fn hang() -> ! {
    std::fs::write("hangs", "").expect("a folder that can be written");
    loop {
        std::thread::sleep(Duration::from_hours(1));
    }
}

fn build(request: &BuildRequest) -> Result<Box<dyn Model>, BuildError> {
    match request.variant {
        "panic" => panic!("this model never wanted to be built"),
        "abort" => std::process::abort(),
        "killed" => {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).expect("a process may kill itself");
        }
        "hang" => hang(),
        // Every round is a process of its own; a file tells the later ones that there was a first.
        "hang-later" if request.device.is_autodiff() && std::fs::File::create_new("first-round").is_err() => hang(),
        "allocate" => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(vec![1_u8; 16 << 20]);
            }
        }
        // What a chatty driver does; it must not come between the events.
        "print" => {
            use std::io::Write;
            writeln!(std::io::stdout(), "{{\"event\": \"nonsense\"}} and rubbish").expect("standard output is open");
        }
        _ => {}
    }
    // Training is built with autodiff and comes first; a later build is another workload's.
    assert!(request.variant != "late-panic" || request.device.is_autodiff(), "this model fails after training");
    let mut weights = request.weights.clone();
    if request.variant == "wrong" {
        for value in &mut weights.0.get_mut("model.norm.weight").expect("the final norm").values {
            *value *= 1.01;
        }
    }
    let request = BuildRequest { variant: "default", weights: &weights, ..*request };
    Registry::default().build("decoder", &request)
}
