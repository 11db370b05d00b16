-- GET /api/admin/drivers/:id answers 500: the column `drivers.active_since` does not exist.
-- expect: column public.drivers.active_since timestamptz null
ALTER TABLE "drivers" ADD COLUMN IF NOT EXISTS "active_since" TIMESTAMPTZ NULL;
