//! `countersign audit`: is the audit chain whole?

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use countersign::config::Settings;
use countersign::model::unhex;
use serde_json::json;

use super::operate::print_all;
use super::{log, say};

#[derive(Subcommand)]
pub enum Audit {
    /// Read the audit chains from their start; status 1 where an event was changed, moved or removed
    Verify {
        /// Name or id of one relying party; all of them, and the engine's own chain, if unset
        #[arg(long, value_name = "NAME")]
        rp: Option<String>,
        /// Number and hash that an earlier verification printed, kept elsewhere: the chain must still hold them
        #[arg(long, value_name = "NUMBER:HASH", requires = "rp")]
        checkpoint: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl Audit {
    pub async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let Audit::Verify { rp, checkpoint, json } = self;
        let _log = log::start(&settings.log()?)?;
        let checkpoint = checkpoint.as_deref().map(read_checkpoint).transpose()?;
        let custodian = countersign::custodian(&settings.storage()?, &settings.master_key()?).await?;
        let reports = custodian.verify_audit(rp.as_deref(), checkpoint).await?;
        let whole = reports.iter().all(|report| report.findings.is_empty());
        print_all(json, reports.iter().map(|report| {
            let findings: Vec<_> = report.findings.iter().map(|f| json!({
                "fault": f.fault.as_str(), "sequence": f.sequence, "event": f.event,
            })).collect();
            let checkpoint = report.head.as_ref().map(|(sequence, hash)| format!("{sequence}:{hash}"));
            let verdict = match report.findings.first() {
                None => "whole".to_owned(),
                Some(first) => format!("BROKEN: {} at {}, {} in all", first.fault.as_str(), first.sequence, report.findings.len()),
            };
            let line = format!(
                "{}  {}  {verdict}  {} events, {} not sealed yet  checkpoint {}",
                report.rp_id, report.name.as_deref().unwrap_or("-"), report.events, report.unsealed,
                checkpoint.as_deref().unwrap_or("-"),
            );
            let object = json!({
                "rp": report.rp_id, "name": report.name, "whole": report.findings.is_empty(), "events": report.events,
                "unsealed": report.unsealed, "checkpoint": checkpoint, "findings": findings,
            });
            (object, line)
        }));
        if whole {
            return Ok(ExitCode::SUCCESS);
        }
        say("An audit chain is not as the engine wrote it.");
        Ok(ExitCode::FAILURE)
    }
}

fn read_checkpoint(text: &str) -> anyhow::Result<(i64, Vec<u8>)> {
    let read = || {
        let (number, hash) = text.split_once(':')?;
        Some((number.parse().ok()?, unhex(hash).filter(|hash| hash.len() == 32)?))
    };
    read().context("--checkpoint: expected NUMBER:HASH, as audit verify prints it")
}
