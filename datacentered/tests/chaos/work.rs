//! What the fleet is given to do, and what has to come out of it.

use datacentered_proto::ByteString;
use datacentered_proto::ops::job::ExecSpec;

use crate::random::Random;

/// Notes the start of the job under its id (the second argument of its shim) before anything else, then does as its
/// arguments say.
const SCRIPT: &str = r#"
job=$(tr '\0' '\n' < /proc/$PPID/cmdline | sed -n 3p)
echo "$job" >> "$1"
case "$2" in
lines)
  i=0
  while [ $i -lt "$3" ]; do
    echo "line $i of $4"
    [ $((i % 16)) = 7 ] && echo "aside $i" >&2
    [ $((i % 32)) = 31 ] && sleep 0.01
    i=$((i+1))
  done
  exit "$5" ;;
bulk) yes "bulk of $4" | head -c "$3"; exit "$5" ;;
cat) cat; exit "$5" ;;
signal) echo "line 0 of $4"; kill -KILL $$; sleep 100 ;;
sleep) echo "line 0 of $4"; sleep 100; exit 99 ;;
esac
"#;

/// One kind of work, with what it needs to know what must come out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Prints lines on both streams, with pauses.
    Lines { count: u64, code: i32 },
    /// Prints bytes as fast as it can.
    Bulk { bytes: u64, code: i32 },
    /// Prints what it is given.
    Cat { bytes: u64, code: i32 },
    /// Kills itself.
    Signal,
    /// Sleeps until its time limit ends it.
    TimeLimit,
    /// Sleeps until it is cancelled.
    Cancel { after_ms: u64 },
}

impl Work {
    pub(crate) fn choose(random: &mut Random) -> Self {
        let code = random.below(120) as i32;
        match random.below(20) {
            0..=9 => Self::Lines { count: random.below(400), code },
            10..=12 => Self::Bulk { bytes: random.below(1 << 20), code },
            13..=15 => Self::Cat { bytes: random.below(200_000), code },
            16 => Self::Signal,
            17 => Self::TimeLimit,
            _ => Self::Cancel { after_ms: random.below(800) },
        }
    }

    /// What is executed: starts are noted in `notes`, lines carry `tag`.
    pub(crate) fn exec(&self, notes: &str, tag: &str) -> ExecSpec {
        let (word, amount, code) = match self {
            Self::Lines { count, code } => ("lines", *count, *code),
            Self::Bulk { bytes, code } => ("bulk", *bytes, *code),
            Self::Cat { bytes, code } => ("cat", *bytes, *code),
            Self::Signal => ("signal", 0, 0),
            Self::TimeLimit | Self::Cancel { .. } => ("sleep", 0, 0),
        };
        let (amount, code) = (amount.to_string(), code.to_string());
        let argv = ["sh", "-c", SCRIPT, "sh", notes, word, &amount, tag, &code];
        let mut exec = ExecSpec::command(argv.into_iter().map(ByteString::from).collect());
        exec.stdin = matches!(self, Self::Cat { .. });
        exec.grace_ms = 500;
        if *self == Self::TimeLimit {
            exec.timeout_ms = Some(300);
        }
        exec
    }

    /// What is put in, for work that reads.
    pub(crate) fn input(&self, tag: &str) -> Option<Vec<u8>> {
        match self {
            Self::Cat { bytes, .. } => Some(repeated(&format!("input of {tag}\n"), *bytes)),
            _ => None,
        }
    }

    /// Both streams of a job that ran to its end.
    pub(crate) fn output(&self, tag: &str) -> (Vec<u8>, Vec<u8>) {
        match self {
            Self::Lines { count, .. } => {
                let out: Vec<String> = (0..*count).map(|line| format!("line {line} of {tag}\n")).collect();
                let aside = (0..*count).filter(|line| line % 16 == 7);
                let err: Vec<String> = aside.map(|line| format!("aside {line}\n")).collect();
                (out.concat().into(), err.concat().into())
            }
            Self::Bulk { bytes, .. } => (repeated(&format!("bulk of {tag}\n"), *bytes), Vec::new()),
            Self::Cat { .. } => (self.input(tag).unwrap_or_default(), Vec::new()),
            Self::Signal | Self::TimeLimit | Self::Cancel { .. } => {
                (format!("line 0 of {tag}\n").into(), Vec::new())
            }
        }
    }

    /// Whether this is an end that the work itself comes to, without help from a fault.
    pub(crate) fn ends_as(&self, outcome: &datacentered_proto::Outcome) -> bool {
        use datacentered_proto::Outcome;
        match (self, outcome) {
            (
                Self::Lines { code, .. } | Self::Bulk { code, .. } | Self::Cat { code, .. },
                Outcome::Exited { code: ended },
            ) => code == ended,
            (Self::Signal, Outcome::Signaled { signal }) => *signal == 9,
            (Self::TimeLimit, Outcome::TimedOut) | (Self::Cancel { .. }, Outcome::Cancelled { .. }) => true,
            _ => false,
        }
    }
}

fn repeated(line: &str, bytes: u64) -> Vec<u8> {
    line.bytes().cycle().take(bytes as usize).collect()
}
