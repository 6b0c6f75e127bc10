//! One run of a program: a sandbox of its own, its output as data, nothing left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;

use super::programs::Program;
use super::wire::ErrorResponse;
use super::{Failure, Island, Wanted};
use crate::fault::Result;
use crate::function::ReplicaName;
use crate::image::Image;
use crate::job::{Captured, End, Job, Limits, Outcome};
use crate::network::Link;
use crate::sandbox::{self, Exit};

/// Most bytes of standard error that a failure shows: its end.
const STDERR_SHOWN: usize = 4 << 10;

/// Open files of one process of a run.
const OPEN_FILES: u64 = 1024;

/// What is said of a run that somebody has ended.
const KILLED: &str = "the function was killed through the admin API";

impl Island {
    /// Runs a program and gives what it printed.
    pub(super) fn run(&self, program: &Program, wanted: &Wanted) -> Result<String, Failure> {
        let begun = Instant::now();
        let jobs = self.builder.jobs();
        let name = jobs.name(&super::programs::label(&wanted.repository.to_string()))?;
        let entry = self.begin(&name, wanted.ip4)?;
        let job = self.job(&program.image, name, entry.link.clone());
        let limits = job.limits.clone();
        let outcome = jobs.run(job, None);
        let killed = entry.killed();
        drop(entry);
        let outcome = match outcome {
            // It was still starting, of which its own words would say less.
            Err(_) if killed => {
                let answer = ErrorResponse { error: KILLED.to_owned(), status: None, stderr: None };
                return Err(Failure::of_run(StatusCode::INTERNAL_SERVER_ERROR, answer));
            }
            other => other?,
        };
        self.measure(begun.elapsed(), &outcome);
        match outcome.end {
            End::Exited(Exit::Code(0)) => Ok(outcome.stdout.text()),
            end => Err(failed(&limits, end, killed, &outcome.stderr)),
        }
    }

    fn job(&self, image: &Arc<Image>, name: ReplicaName, link: Option<Link>) -> Job {
        let settings = &self.settings;
        let limits = Limits {
            wall: settings.exec_timeout,
            output: usize::try_from(settings.output).unwrap_or(usize::MAX),
            disk: None,
            sandbox: sandbox::Limits {
                memory: Some(settings.memory),
                cpu_millis: Some(settings.cpu_millis),
                pids: Some(settings.pids),
                open_files: Some(OPEN_FILES),
                ..sandbox::Limits::default()
            },
        };
        let mut job = Job::new(name, image.run.argv.clone(), limits);
        if let Some(link) = &link {
            job.files = self.provider.network_files(link, job.name.function().name.as_str());
        }
        Job {
            layers: image.layers.clone(),
            read_only: true,
            link,
            env: image.run.env.clone(),
            workdir: image.run.workdir.clone().into(),
            ..job
        }
    }

    fn measure(&self, whole: Duration, outcome: &Outcome) {
        self.counters.runs.observe(whole.as_secs_f64());
        self.statsd.timing("filesystem.dataset_create", outcome.before.clone);
        self.statsd.timing("jail.create_jail_time", outcome.before.clone + outcome.before.start);
        self.statsd.event("jail.created");
        let removal = whole.saturating_sub(outcome.before.clone + outcome.before.start + outcome.took);
        self.statsd.timing("jail.remove_jail_time", removal);
        self.statsd.event("jail.removed");
    }
}

fn failed(limits: &Limits, end: End, killed: bool, stderr: &Captured) -> Failure {
    let (code, status) = match end {
        End::TimedOut => (StatusCode::GATEWAY_TIMEOUT, None),
        End::Stopped => (StatusCode::SERVICE_UNAVAILABLE, None),
        End::Exited(Exit::Code(status)) => (StatusCode::INTERNAL_SERVER_ERROR, Some(status)),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, None),
    };
    let error = match killed {
        true => KILLED.to_owned(),
        false => format!("the function {}", limits.describe(end)),
    };
    let shown = &stderr.bytes[stderr.bytes.len().saturating_sub(STDERR_SHOWN)..];
    let stderr = (!shown.is_empty()).then(|| String::from_utf8_lossy(shown).into_owned());
    Failure::of_run(code, ErrorResponse { error, status, stderr })
}
