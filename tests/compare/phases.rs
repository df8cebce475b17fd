//! factlib alone runs through all phases of the benchmark, in little.

use crate::comparison::{self, Scale, checker::Verdict, faults::RATE, peer::Peer};

#[tokio::test]
async fn factlib_passes_all_phases() {
    let peers = vec![Peer::Factlib];
    let report = comparison::run(&Scale { facts: 2_000, seconds: 2, peers }).await.unwrap();
    println!("{}", report.markdown());
    assert!(report.left_out.is_empty());
    assert_eq!(report.rows.len(), 1);
    for row in report.rows {
        let drain = row.drain.expect("a drain").expect("a drain without an error");
        assert_eq!(drain.verdict, Verdict { committed: 2_000, ..Verdict::default() });
        assert!(drain.events_per_s > 0.0 && drain.cpu_s_per_million > 0.0 && drain.peak_mib > 1.0);
        let distances = row.distances.expect("distances").expect("distances without an error");
        let p50_ms: Vec<f64> = distances.0.iter().map(|one| one.to_arrival.p50_ms).collect();
        // The proxy delays the request, whatever the machine does.
        assert!(p50_ms.len() == 3 && p50_ms[2] >= 2.5, "{p50_ms:?}");
        for (fault, loss) in row.losses {
            let loss = loss.unwrap_or_else(|error| panic!("{}: {error}", fault.label()));
            let verdict = loss.verdict;
            let kept = Verdict {
                committed: verdict.committed,
                repeated: verdict.repeated,
                ..Verdict::default()
            };
            assert_eq!(verdict, kept, "{}", fault.label());
            // Eight sessions may be in doubt at each stop of the server.
            assert!(verdict.committed as u64 > 2 * RATE - 20, "{}", fault.label());
            assert_eq!(loss.ends, 0, "{}", fault.label());
        }
    }
}
