//! The tables of docs/comparison.md.

use std::fmt::Write;

use super::{
    distance::{self, ROUND_TRIPS_MS},
    drain::Drain,
    faults::{self, Fault, Loss},
    machine::Machine,
    report::{Measured, Report, Row},
};

/// Returns what was measured where, and the tables.
pub fn markdown(report: &Report) -> String {
    let mut text = setting(report);
    text += &figures(report);
    text += &losses(report);
    text
}

fn setting(report: &Report) -> String {
    let Machine { cores, memory_gib, load_before, postgres, kafka, date } = &report.machine;
    let mut text = format!(
        "Measured on {date}, on a machine with {cores} cores and {memory_gib:.0} GiB of memory (load {load_before} \
         before), with PostgreSQL {postgres} and Apache Kafka {kafka}. FACTS={}, SECONDS={}.\n\n",
        report.scale.facts, report.scale.seconds
    );
    text += "| relay | version |\n| --- | --- |\n";
    for row in &report.rows {
        writeln!(text, "| {} | {} |", row.peer.label(), row.version).ok();
    }
    for (peer, reason) in &report.left_out {
        writeln!(text, "| {} | not run: {reason} |", peer.label()).ok();
    }
    text
}

fn figures(report: &Report) -> String {
    let mut text = String::from(
        "\nA backlog of one row per transaction, without the start of the process:\n\n\
         | relay | events/s | CPU s per million | peak MiB | start, s | lost / repeated / out of order |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in &report.rows {
        let cells = cells(row.drain.as_ref(), 5, |drain| {
            let Drain { events_per_s, start_up_s, cpu_s_per_million, peak_mib, verdict } = drain;
            vec![
                thousands(*events_per_s as u64),
                format!("{cpu_s_per_million:.1}"),
                format!("{peak_mib:.0}"),
                format!("{start_up_s:.1}"),
                format!("{} / {} / {}", verdict.lost, verdict.repeated, verdict.out_of_order),
            ]
        });
        line(&mut text, row, &cells);
    }
    write!(
        text,
        "\n{} events/s, from the INSERT to the broker's append (exactly once: to a consumer's receipt after \
         the commit), p50 / p99, by the round trip to the broker. The INSERT's own time, with its commit to disk, is \
         part of it:\n\n\
         | relay |",
        thousands(distance::RATE)
    )
    .ok();
    for round_trip_ms in ROUND_TRIPS_MS {
        write!(text, " {round_trip_ms} ms |").ok();
    }
    text += " the INSERT itself, at 0 ms | CPU s per million, at 0 ms |\n| --- |";
    text += &" ---: |".repeat(ROUND_TRIPS_MS.len() + 2);
    text.push('\n');
    for row in &report.rows {
        let cells = cells(row.distances.as_ref(), ROUND_TRIPS_MS.len() + 2, |distances| {
            let both = |q: &crate::support::quantiles::Quantiles| {
                format!("{:.1} / {:.1} ms", q.p50_ms, q.p99_ms)
            };
            let mut cells: Vec<String> =
                distances.0.iter().map(|distance| both(&distance.to_arrival)).collect();
            if let Some(near) = distances.0.first() {
                cells.push(both(&near.to_commit));
                cells.push(format!("{:.0}", near.cpu_s_per_million));
            }
            cells
        });
        line(&mut text, row, &cells);
    }
    text
}

fn losses(report: &Report) -> String {
    let mut text = format!(
        "\nFaults under {} events/s; what is stopped is started again after {} s, and also a relay that ends by itself:\n\n\
         | relay | fault | committed | lost | repeated | out of order | longest pause, s | server away, s | ended by itself |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        thousands(faults::RATE),
        faults::AWAY.as_secs()
    );
    for row in &report.rows {
        for (fault, loss) in &row.losses {
            let mut cells = cells(Some(loss), 7, |loss| {
                let Loss { verdict, longest_pause_s, server_away_s, ends } = loss;
                vec![
                    thousands(verdict.committed as u64),
                    thousands(verdict.lost as u64),
                    thousands(verdict.repeated as u64),
                    thousands(verdict.out_of_order as u64),
                    format!("{longest_pause_s:.1}"),
                    format!("{server_away_s:.1}"),
                    ends.to_string(),
                ]
            });
            cells.insert(0, with_count(*fault));
            line(&mut text, row, &cells);
        }
    }
    text
}

fn with_count(fault: Fault) -> String {
    format!("{}, {} times", fault.label(), fault.times())
}

/// Returns the cells of a phase, or one that has the error and empty ones.
fn cells<T>(
    measured: Option<&Measured<T>>,
    count: usize,
    of: impl FnOnce(&T) -> Vec<String>,
) -> Vec<String> {
    let reason = match measured {
        Some(Ok(figures)) => return of(figures),
        Some(Err(error)) => format!("failed: {}", error.replace(['|', '\n'], " ")),
        None => "not measured".to_owned(),
    };
    let empty = std::iter::repeat_n(String::new(), count.saturating_sub(1));
    std::iter::once(reason).chain(empty).collect()
}

fn line(text: &mut String, row: &Row, cells: &[String]) {
    writeln!(text, "| {} | {} |", row.peer.label(), cells.join(" | ")).ok();
}

/// Writes `1234567` as `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
