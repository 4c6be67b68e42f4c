//! A terminal over the link: the operations that the hub calls.

use std::time::Duration;

use datacentered_link::{StreamEvent, StreamReader};
use datacentered_proto::frame::Kind;
use datacentered_proto::operations::{JobInput, JobResize};
use datacentered_proto::ops::job::{ExecSpec, InputParams, ResizeParams, TerminalSpec, Window};
use datacentered_proto::ops::terminal::Mark;
use datacentered_proto::{Code, Outcome};
use rustix::process::Signal;

use super::fake_hub::FakeHub;
use super::program::Program;
use super::{ended, job, offer_spec, output};

/// Reads on until the text holds `until`, or the stream has ended; returns the offset behind what was read.
async fn read(reader: &mut StreamReader, text: &mut String, marks: &mut Vec<Mark>, until: &str) -> u64 {
    let all = async {
        loop {
            match reader.next().await.expect("has no end before its end") {
                StreamEvent::Bytes { kind: Kind::Mark, payload, .. } => {
                    marks.push(Mark::decode(&payload).expect("a mark"));
                }
                StreamEvent::Bytes { kind: Kind::Terminal, offset, payload } => {
                    text.push_str(&String::from_utf8_lossy(&payload));
                    if text.contains(until) {
                        return offset + payload.len() as u64;
                    }
                }
                StreamEvent::End(end) => return end.offset,
                other => panic!("unexpected: {other:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("output comes")
}

#[tokio::test]
async fn a_terminal_is_typed_into_and_resized_over_the_link() {
    let hub = FakeHub::start().await;
    let agent = Program::join(&hub);
    let link = hub.link(1).await;
    let window = Window { cols: 80, rows: 24 };
    let terminal = Some(TerminalSpec { window, term: "xterm".into() });
    offer_spec(&hub, &link, 1, ExecSpec { terminal, ..ExecSpec::command(vec!["sh".into()]) }).await;
    let (mut text, mut marks) = (String::new(), Vec::new());
    let mut reader = output(&link, 1, 0).await;
    let (_, mut writer) =
        link.upload::<JobInput>(|stream| InputParams { job: job(1), stream }).await.expect("opens");
    writer.send_bytes(Kind::Stdin, 0, "stty size\n".into()).await.expect("sends");
    read(&mut reader, &mut text, &mut marks, "24 80").await;
    assert_eq!(marks[0], Mark { at_ms: 0, window });

    let bad = ResizeParams { job: job(1), window: Window { cols: 0, rows: 24 } };
    assert_eq!(link.call::<JobResize>(&bad).await.expect_err("is refused").code, Code::Invalid);
    let window = Window { cols: 120, rows: 40 };
    link.call::<JobResize>(&ResizeParams { job: job(1), window }).await.expect("resizes");
    writer.send_bytes(Kind::Stdin, 10, "stty size; exit 4\n".into()).await.expect("sends");
    read(&mut reader, &mut text, &mut marks, "40 120").await;
    let end = read(&mut reader, &mut text, &mut marks, "never printed").await;

    let report = ended(&hub, 1).await;
    assert_eq!(report.outcome, Some(Outcome::Exited { code: 4 }));
    assert_eq!((report.stdout_bytes, report.mark_bytes), (text.len() as u64, 12 * marks.len() as u64));
    assert_eq!(end, report.stdout_bytes + report.mark_bytes);
    assert_eq!(marks.last().map(|mark| mark.window), Some(window));
    agent.end(Signal::TERM).await;
}
