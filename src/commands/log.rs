//! Where log lines and traces go: lines to stderr as text or JSON, traces to a collector in a build with the feature `otlp`.

use anyhow::Context;
use countersign::config::Log;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};

/// The log of this process; what is still on its way to a collector goes out when it ends.
#[must_use]
pub struct Started {
    #[cfg(feature = "otlp")]
    traces: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

/// Which lines are let through. A word alone must be a level: as the name of a module, which a misspelt level would be taken for, it
/// would silence all others.
pub fn filter(log: &Log) -> anyhow::Result<EnvFilter> {
    const EXPECTED: &str = "COUNTERSIGN_LOG: expected as info or countersign=debug,info";
    let directives = log.filter.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    for word in directives.filter(|directive| !directive.contains(['=', '['])) {
        word.parse::<LevelFilter>().with_context(|| format!("{EXPECTED}, not {word}"))?;
    }
    EnvFilter::try_new(&log.filter).context(EXPECTED)
}

/// Logs from now on.
pub fn start(log: &Log) -> anyhow::Result<Started> {
    let filter = filter(log)?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match log.json {
        true => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
        false => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
    };
    let all = registry().with(filter).with(lines);
    #[cfg(not(feature = "otlp"))]
    {
        all.init();
        Ok(Started {})
    }
    #[cfg(feature = "otlp")]
    {
        let traces = log.otlp_endpoint.as_ref().map(otlp::provider).transpose()?;
        all.with(traces.as_ref().map(otlp::layer)).init();
        Ok(Started { traces })
    }
}

impl Started {
    /// Nothing more will be logged.
    pub fn end(self) {
        #[cfg(feature = "otlp")]
        if let Some(Err(error)) = self.traces.map(|traces| traces.shutdown()) {
            tracing::warn!(%error, "the last traces did not reach the collector");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_there_is_not_is_refused_instead_of_silencing_all() {
        let reads = |text: &str| {
            let log = Log { filter: text.to_owned(), json: false, otlp_endpoint: None };
            filter(&log).map(drop).map_err(|error| error.to_string())
        };
        for good in ["info", "WARN", "countersign=debug,info", "off", "error,sqlx=warn", "countersign[request]=debug"] {
            assert_eq!(reads(good), Ok(()), "{good}");
        }
        for bad in ["warning", "info,countersing", "verbose", "countersign=loud", "a=b=c"] {
            assert!(reads(bad).is_err_and(|why| why.contains("COUNTERSIGN_LOG")), "{bad}");
        }
    }
}

#[cfg(feature = "otlp")]
mod otlp {
    use anyhow::Context;
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
    use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
    use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
    use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, runtime};
    use tracing::Subscriber;
    use tracing_opentelemetry::OpenTelemetryLayer;
    use tracing_subscriber::Layer;
    use tracing_subscriber::filter::filter_fn;
    use tracing_subscriber::registry::LookupSpan;
    use url::Url;

    const NAME: &str = "countersign";

    pub fn provider(endpoint: &Url) -> anyhow::Result<SdkTracerProvider> {
        let client = reqwest::Client::builder();
        // A machine without a CA bundle can still reach a collector over plain HTTP.
        let client = if endpoint.scheme() == "http" { client.tls_certs_only([]) } else { client };
        let address = format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client.build()?)
            .with_endpoint(address)
            .build()
            .context("COUNTERSIGN_OTLP_ENDPOINT")?;
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        let resource = Resource::builder().with_service_name(NAME).build();
        let gathered = BatchSpanProcessor::builder(exporter, runtime::Tokio).build();
        Ok(SdkTracerProvider::builder().with_resource(resource).with_span_processor(gathered).build())
    }

    /// The engine's own spans only: those of the client that sends them would beget others.
    pub fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let layer: OpenTelemetryLayer<S, Tracer> = tracing_opentelemetry::layer().with_tracer(provider.tracer(NAME));
        layer.with_location(false).with_threads(false).with_filter(filter_fn(|m| m.target().starts_with(NAME)))
    }
}
