//! The shim: the small process that owns one job's process and outlives the agent.
//!
//! It has one thread and one loop, no runtime, and keeps its own memory small. It holds the lock on the job's directory
//! for as long as it lives, is the reaper of everything that the job's process leaves behind, writes output to the
//! spool and the outcome to the job's slot, and talks to whatever agent connects to its socket.
//!
//! Life: started by the agent with its socket as descriptor 0, its [`launch::Launch`] as descriptor 1 and its log as
//! descriptor 2; waits for [`wire::ToShim::Go`]; takes the lock; writes `starting`; executes; writes the end; leaves.
//! Until `Go` it touches nothing, so an agent that dies before the job is in the journal leaves no trace.

mod connection;
mod ending;
mod input;
pub mod launch;
mod machine;
mod output;
mod ready;
mod report;
mod setup;
mod start;
mod terminal;
mod timer;
pub mod wire;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

/// The hidden subcommand's entry. `args` are those behind the subcommand; they are for `ps` only.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    drop(args.into_iter());
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Descriptor 2 is the job's shim.log: the agent quotes it as evidence.
            let _ = rustix::io::write(rustix::stdio::stderr(), format!("shim: {error}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let Some(begin) = setup::begin()? else { return Ok(()) };
    let Some((owned, connection)) = setup::own(begin)? else { return Ok(()) };
    machine::Machine::run(owned, connection)
}
