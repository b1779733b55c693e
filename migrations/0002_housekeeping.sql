-- Work that one node at a time does: who does it, and until when.
create table leases (
  name text primary key,
  holder text not null,
  expires_at bigint not null
);

-- When a budget was last drawn on; null where a release that does not know it made the row.
alter table send_budgets add column used_at bigint;
create index send_budgets_age on send_budgets (used_at) where used_at is not null;
