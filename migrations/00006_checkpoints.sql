-- Copies of states that are too large for a ConfigMap: the newest of each processor. No foreign key to processors, and
-- no deletion with it: state outlives a processor whose row or object was deleted by mistake.

-- +goose Up

CREATE TABLE processor_checkpoints (
    processor_id text        NOT NULL,
    namespace    text        NOT NULL,
    epoch        bigint      NOT NULL,
    sequence     bigint      NOT NULL,
    captured_at  timestamptz NOT NULL,
    pod_name     text        NOT NULL DEFAULT '',
    checksum     text        NOT NULL,
    size_bytes   bigint      NOT NULL,
    document     bytea       NOT NULL,
    saved_at     timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT processor_checkpoints_pkey PRIMARY KEY (processor_id),
    CONSTRAINT processor_checkpoints_epoch_is_not_negative CHECK (epoch >= 0),
    CONSTRAINT processor_checkpoints_sequence_is_not_negative CHECK (sequence >= 0)
);

-- The documents are compressed already.
ALTER TABLE processor_checkpoints ALTER COLUMN document SET STORAGE EXTERNAL;

COMMENT ON TABLE processor_checkpoints IS 'The newest copy of each state that is too large for a ConfigMap. An older one never replaces a newer one.';
COMMENT ON COLUMN processor_checkpoints.sequence IS 'Iterations that were committed to the state; 0 where the processor does not say. Then captured_at decides which copy is newer.';
COMMENT ON COLUMN processor_checkpoints.checksum IS 'SHA-256 of the state as canonical JSON, in hex.';
COMMENT ON COLUMN processor_checkpoints.size_bytes IS 'Length of the state as canonical JSON.';
COMMENT ON COLUMN processor_checkpoints.document IS 'The state document, compressed with zstd: zstd -dc shows the JSON that the state ConfigMap would hold.';
