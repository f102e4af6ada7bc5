"""One run a calendar day, whatever the clocks do. No server, no database."""
import asyncio
import sys
from collections import Counter
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

sys.path.insert(0, ".")
from prefect.server.schemas.schedules import CronSchedule

from components.config.schedule_params import ScheduleParams

CHANGES = {"Europe/Berlin": ("2027-03-28", "2027-10-31"), "America/Montreal": ("2027-03-14", "2027-11-07")}
wrong = 0
for zone, days in CHANGES.items():
    for cron in ("30 2 * * *", "15 3 * * *", "10 0 * * *", "30 1 * * *"):
        taken = ScheduleParams(cron=cron, timezone=zone)
        for day in days:
            noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZoneInfo(zone)) - timedelta(days=2)
            # The server asks again every minute: from any moment before, the plan must be the same.
            plans = set()
            for hours in (0, 11, 13, 14, 15):
                start = (noon.astimezone(ZoneInfo("UTC")) + timedelta(days=1, hours=hours)).astimezone(ZoneInfo(zone))
                dates = asyncio.run(CronSchedule(cron=taken.cron, timezone=taken.timezone).get_dates(n=4, start=start))
                plans.add(tuple(str(date) for date in dates if str(date)[:10] > day))
                found = Counter(str(date)[:10] for date in dates)
                if max(found.values()) > 1 or (hours == 0 and day not in found):
                    wrong += 1
                    print(zone, cron, "from", start, "->", [str(date) for date in dates])
            if len({plan[:2] for plan in plans}) > 1:
                wrong += 1
                print(zone, cron, day, "the days after it are planned differently:", plans)
print("wrong:", wrong)
sys.exit(wrong > 0)
