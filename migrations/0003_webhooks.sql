-- Webhooks. It only adds: the release before runs beside it and knows nothing of them.

-- Where a relying party is told of its events. kinds is a JSON list, null for all; secrets are sealed. Events up to the number
-- handed_to have become deliveries.
create table webhook_endpoints (
  rp_id text not null,
  id text not null,
  url text not null,
  kinds text,
  description text,
  secrets bytea not null,
  handed_to bigint not null,
  created_at bigint not null,
  disabled_at bigint,
  disabled_reason text,
  failing_since bigint,
  paused_until bigint,
  primary key (rp_id, id)
);

-- What an endpoint is told, and what became of it; whom an event tells of stands in the event alone. next_at is null, and outcome
-- is not, once nothing more is done. sequence is the event's number, 0 for a test.
create table webhook_deliveries (
  rp_id text not null,
  endpoint_id text not null,
  event_id text not null,
  sequence bigint not null,
  kind text not null,
  created_at bigint not null,
  attempts bigint not null,
  next_at bigint,
  outcome text,
  last_at bigint,
  last_status bigint,
  last_error text,
  primary key (rp_id, endpoint_id, event_id)
);
create index webhook_deliveries_due on webhook_deliveries (rp_id, endpoint_id, next_at) where next_at is not null;
create index webhook_deliveries_done on webhook_deliveries (last_at) where next_at is null;
