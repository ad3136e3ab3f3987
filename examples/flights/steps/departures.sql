-- One row per scheduled departure, with only what was known before it left.
-- The weather is that of the hour before. An outcome is known after the delay, the flight and an
-- hour on the ground, an upper estimate; cancelled and diverted flights have none.
select
    flights.carrier,
    flights.flight,
    flights.time_hour,
    flights.time_hour + to_minutes(flights.minute) as scheduled_at,
    flights.origin,
    flights.dest,
    flights.hour,
    flights.distance,
    weather.wind_speed,
    weather.precip,
    weather.visib,
    flights.time_hour
        + to_minutes(flights.minute + flights.dep_delay + flights.air_time + 60) as known_at,
    flights.arr_delay > 15 as late
from flights
left join weather
    on weather.origin = flights.origin
    and weather.time_hour = flights.time_hour - interval 1 hour
