//! Rules in their order, and which of them decides.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use super::glob;
use super::question::{Kind, Question};
use super::window::Window;

/// Most of a command line that a decision quotes, in bytes.
const MAX_QUOTED: usize = 120;

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The job is taken.
    Allow,
    /// It is refused.
    Refuse,
}

impl Action {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Refuse => "refuse",
        }
    }
}

/// A policy as it was read.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(super) path: PathBuf,
    pub(super) rules: Vec<Rule>,
    pub(super) default: Otherwise,
}

/// What holds where no rule matches.
#[derive(Clone, Debug)]
pub(super) struct Otherwise {
    pub(super) line: usize,
    pub(super) action: Action,
    pub(super) reason: Option<String>,
}

/// One rule. What is absent matches everything.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) line: usize,
    pub(super) action: Action,
    pub(super) kinds: Vec<Kind>,
    pub(super) users: Option<Vec<String>>,
    pub(super) commands: Option<Vec<String>>,
    pub(super) scripts: Option<bool>,
    pub(super) env: Option<Vec<String>>,
    pub(super) times: Option<Vec<Window>>,
    pub(super) reason: Option<String>,
}

/// What was decided, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What.
    pub action: Action,
    /// The line of the rule, or of the default.
    pub line: usize,
    /// All of it for a person: file, line, what and why.
    pub text: String,
}

impl Policy {
    /// How many rules it has.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether it has no rules, only a default.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What holds where no rule matches.
    pub fn default_action(&self) -> Action {
        self.default.action
    }

    /// Decides: the first rule that matches, else the default.
    pub fn decide(&self, question: &Question) -> Decision {
        let line = question.line();
        let mut but_for_env = None;
        for rule in &self.rules {
            match rule.matches(question, &line) {
                Match::Yes => {
                    return self.decision(question, rule.line, rule.action, rule.reason.as_deref(), "");
                }
                Match::ButForVariable(name) => {
                    but_for_env.get_or_insert((rule.line, name));
                }
                Match::No => {}
            }
        }
        let Otherwise { line, action, reason } = &self.default;
        let note = match but_for_env {
            Some((rule, name)) if *action == Action::Refuse => format!(
                " (line {rule} would allow it without the variable {}; see `env`)",
                crate::text::clean(name, MAX_QUOTED)
            ),
            _ => String::new(),
        };
        self.decision(question, *line, *action, reason.as_deref(), &format!(" by default{note}"))
    }

    fn decision(
        &self,
        question: &Question,
        line: usize,
        action: Action,
        reason: Option<&str>,
        note: &str,
    ) -> Decision {
        let verb = match action {
            Action::Allow => "allows",
            Action::Refuse => "refuses",
        };
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let text = format!("{}:{line} {verb} {}{note}{reason}", self.path.display(), Asked(question));
        Decision { action, line, text }
    }
}

/// What was asked, for a person.
pub(super) struct Asked<'a>(pub(super) &'a Question);

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Question { kind, who, .. } = self.0;
        let line = self.0.line();
        let line = crate::text::clean(&String::from_utf8_lossy(&line), MAX_QUOTED);
        let name = crate::text::clean(&who.name, MAX_QUOTED);
        write!(f, "{kind} as {name} of `{line}`")
    }
}

enum Match<'a> {
    Yes,
    No,
    /// It would, if the job did not set this variable.
    ButForVariable(&'a str),
}

impl Rule {
    fn matches<'a>(&self, question: &'a Question, line: &[u8]) -> Match<'a> {
        let matches = self.kinds.contains(&question.kind)
            && self.scripts.is_none_or(|scripts| scripts == question.script)
            && self.users.as_ref().is_none_or(|users| users.iter().any(|user| is_user(user, question)))
            && self
                .times
                .as_ref()
                .is_none_or(|times| times.iter().any(|window| window.contains(question.at)))
            && self.commands.as_ref().is_none_or(|globs| {
                globs.iter().any(|glob| self.is_command(glob.as_bytes(), question, line))
            });
        if !matches {
            return Match::No;
        }
        match self.variable_against(question) {
            Some(name) => Match::ButForVariable(name),
            None => Match::Yes,
        }
    }

    /// A variable can make another program out of an allowed one (PATH, LD_PRELOAD, BASH_ENV, ...), so a rule that
    /// allows certain commands allows only the variables that it names.
    fn variable_against<'a>(&self, question: &'a Question) -> Option<&'a str> {
        if self.action == Action::Refuse || (self.commands.is_none() && self.env.is_none()) {
            return None;
        }
        let known = self.env.as_deref().unwrap_or_default();
        let is_known =
            |name: &String| known.iter().any(|glob| glob::matches(glob.as_bytes(), name.as_bytes()));
        question.env.iter().find(|name| !is_known(name)).map(String::as_str)
    }

    fn is_command(&self, glob: &[u8], question: &Question, line: &[u8]) -> bool {
        let program = question.argv.first().map_or(&b""[..], |program| program.as_bytes());
        if glob::matches(glob, program) || glob::matches(glob, line) {
            return true;
        }
        // What is refused by its name is refused by its path too: `rm` is also /bin/rm.
        if self.action == Action::Refuse
            && let Some(slash) = program.iter().rposition(|byte| *byte == b'/')
        {
            return glob::matches(glob, &program[slash + 1..]) || glob::matches(glob, &line[slash + 1..]);
        }
        false
    }
}

/// By name (a glob) or by number; `root` is number 0 under whatever name.
fn is_user(pattern: &str, question: &Question) -> bool {
    let who = &question.who;
    glob::matches(pattern.as_bytes(), who.name.as_bytes())
        || who.uid.is_some_and(|uid| pattern == uid.to_string() || (uid == 0 && pattern == "root"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;
    use super::super::question::{LocalTime, Who};
    use super::*;
    use datacentered_proto::ByteString;

    fn policy(text: &str) -> Policy {
        parse::policy(Path::new("/p/policy.toml"), text).expect("is valid")
    }

    fn ask(argv: &[&str]) -> Question {
        Question {
            kind: Kind::Exec,
            who: Who { name: "root".into(), uid: Some(0) },
            argv: argv.iter().map(|word| ByteString::from(*word)).collect(),
            script: false,
            env: Vec::new(),
            // Wednesday noon.
            at: LocalTime { weekday: 2, minute: 720 },
        }
    }

    fn as_user(name: &str, uid: u32) -> Question {
        Question { who: Who { name: name.into(), uid: Some(uid) }, ..ask(&["id"]) }
    }

    fn line(policy: &Policy, question: &Question) -> (Action, usize) {
        let decision = policy.decide(question);
        (decision.action, decision.line)
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = policy(
            "default = \"refuse\"\n\
             [[rule]]\nrefuse = [\"exec\"]\ncommands = [\"reboot\"]\nreason = \"ask first\"\n\
             [[rule]]\nallow = [\"exec\"]\nusers = [\"root\"]\n\
             [[rule]]\nrefuse = [\"exec\", \"terminal\"]\n",
        );
        assert_eq!(line(&policy, &ask(&["reboot"])), (Action::Refuse, 2));
        assert_eq!(line(&policy, &ask(&["uptime"])), (Action::Allow, 6));
        assert_eq!(line(&policy, &as_user("ann", 1000)), (Action::Refuse, 9));
        let terminal = Question { kind: Kind::Terminal, ..ask(&["reboot"]) };
        assert_eq!(line(&policy, &terminal), (Action::Refuse, 9));
        assert_eq!(
            policy.decide(&ask(&["reboot"])).text,
            "/p/policy.toml:2 refuses exec as root of `reboot`: ask first"
        );
    }

    #[test]
    fn the_default_has_a_line_too() {
        let policy = policy("# host policy\ndefault = \"refuse\"\nreason = \"closed\"\n");
        let decision = policy.decide(&ask(&["x", "\u{1b}[2J"]));
        assert_eq!((decision.action, decision.line), (Action::Refuse, 2));
        assert_eq!(decision.text, "/p/policy.toml:2 refuses exec as root of `x [2J` by default: closed");
    }

    #[test]
    fn users_by_name_by_glob_and_by_number() {
        let policy = policy(
            "default = \"allow\"\n[[rule]]\nrefuse = [\"exec\"]\nusers = [\"root\", \"www-*\", \"1234\"]\n",
        );
        for (name, uid, action) in [
            ("root", 0, Action::Refuse),
            ("toor", 0, Action::Refuse),
            ("www-data", 33, Action::Refuse),
            ("bob", 1234, Action::Refuse),
            ("ann", 1000, Action::Allow),
        ] {
            assert_eq!(policy.decide(&as_user(name, uid)).action, action, "{name}");
        }
    }

    #[test]
    fn commands_by_program_by_line_and_by_the_last_part_of_a_path() {
        let refuse = |glob: &str, argv: &[&str]| {
            let text =
                format!("default = \"allow\"\n[[rule]]\nrefuse = [\"exec\"]\ncommands = [\"{glob}\"]\n");
            policy(&text).decide(&ask(argv)).action == Action::Refuse
        };
        assert!(
            refuse("rm", &["rm", "-rf", "/"]) && refuse("rm *", &["rm", "x"]) && !refuse("rm *", &["rm"])
        );
        assert!(refuse("rm", &["/bin/rm", "x"]) && refuse("rm *", &["../bin/rm", "x"]));
        assert!(refuse("/sbin/*", &["/sbin/ifdown", "x"]) && !refuse("/sbin/*", &["ifdown"]));
        assert!(!refuse("rm", &["echo", "rm"]) && !refuse("rm", &["warm"]) && !refuse("rm", &[]));
        // What is allowed is allowed as it is written only.
        let allow = policy(
            "default = \"refuse\"\n[[rule]]\nallow = [\"exec\"]\ncommands = [\"ls\", \"git pull*\"]\n",
        );
        assert_eq!(allow.decide(&ask(&["ls", "-l"])).action, Action::Allow);
        assert_eq!(allow.decide(&ask(&["git", "pull"])).action, Action::Allow);
        for argv in [&["/tmp/ls"][..], &["./ls"], &["git", "push"], &["lsof"], &[]] {
            assert_eq!(allow.decide(&ask(argv)).action, Action::Refuse, "{argv:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_matched_as_bytes() {
        let policy = policy("default = \"allow\"\n[[rule]]\nrefuse = [\"exec\"]\ncommands = [\"rm *\"]\n");
        let question = Question { argv: vec!["rm".into(), ByteString(vec![0xff, 0xfe])], ..ask(&[]) };
        assert_eq!(policy.decide(&question).action, Action::Refuse);
    }

    #[test]
    fn an_allowed_command_may_set_only_the_variables_that_are_named() {
        let policy = policy(
            "default = \"refuse\"\n[[rule]]\nallow = [\"exec\"]\ncommands = [\"uptime\"]\nenv = [\"APP_*\"]\n",
        );
        let with = |names: &[&str]| Question {
            env: names.iter().map(ToString::to_string).collect(),
            ..ask(&["uptime"])
        };
        assert_eq!(policy.decide(&with(&["APP_A"])).action, Action::Allow);
        let decision = policy.decide(&with(&["APP_A", "PATH"]));
        assert_eq!(decision.action, Action::Refuse);
        assert!(
            decision.text.contains("line 2 would allow it without the variable PATH"),
            "{}",
            decision.text
        );
    }

    #[test]
    fn scripts_alone_or_commands_alone() {
        let policy = policy(
            "default = \"allow\"\n[[rule]]\nrefuse = [\"exec\"]\nscripts = true\ncommands = [\"/bin/bash\"]\n",
        );
        let script = Question { script: true, ..ask(&["/bin/bash", "SCRIPT"]) };
        assert_eq!(policy.decide(&script).action, Action::Refuse);
        assert_eq!(policy.decide(&ask(&["/bin/bash", "-l"])).action, Action::Allow);
    }

    #[test]
    fn times_are_those_of_the_question() {
        let policy =
            policy("default = \"allow\"\n[[rule]]\nrefuse = [\"exec\"]\ntimes = [\"mon-fri 08:00-18:00\"]\n");
        assert_eq!(policy.decide(&ask(&["x"])).action, Action::Refuse);
        let at = LocalTime { weekday: 6, minute: 720 };
        assert_eq!(policy.decide(&Question { at, ..ask(&["x"]) }).action, Action::Allow);
    }
}
