package com.atguigu.yygh.hosp;

import com.atguigu.yygh.common.YyghException;
import com.atguigu.yygh.model.hosp.Department;
import com.atguigu.yygh.model.hosp.Schedule;
import com.atguigu.yygh.model.hosp.Schedule.Slot;
import java.math.BigDecimal;
import java.time.Clock;
import java.time.DayOfWeek;
import java.time.LocalDate;
import java.time.format.DateTimeFormatter;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.UnaryOperator;
import org.springframework.stereotype.Repository;

/** The coming week of every department, made up when it is first asked for and the same for every pod. */
@Repository
class Schedules {

    static final int DAYS = 7;

    private static final DateTimeFormatter COMPACT = DateTimeFormatter.BASIC_ISO_DATE;
    private static final String[] DOCTORS = {
        "林知远", "苏明月", "陈望舒", "何清和", "许安然", "沈怀瑾", "叶南星", "陆青禾", "顾长风", "白芷兰"
    };
    private static final String[] TITLES = {"主任医师", "副主任医师", "主治医师"};
    private static final int[] FEES = {100, 60, 30};

    private final Map<String, Schedule> schedules = new ConcurrentHashMap<>();
    private final Hospitals hospitals;
    private final Clock clock;

    Schedules(Hospitals hospitals, Clock clock) {
        this.hospitals = hospitals;
        this.clock = clock;
    }

    List<Schedule> of(Department department) {
        fill(department);
        LocalDate today = LocalDate.now(clock);
        return schedules.values().stream()
                .filter(schedule -> schedule.hoscode().equals(department.hoscode()))
                .filter(schedule -> schedule.depcode().equals(department.depcode()))
                .filter(schedule -> schedule.workDate().isAfter(today))
                .sorted(Comparator.comparing(Schedule::workDate)
                        .thenComparing(Schedule::slot)
                        .thenComparing(Schedule::id))
                .toList();
    }

    Schedule get(String id) {
        if (!schedules.containsKey(id)) {
            String[] parts = id.split("-");
            if (parts.length < 2) {
                throw YyghException.notFound("排班", id);
            }
            fill(hospitals.department(parts[0], parts[1]));
        }
        Schedule schedule = schedules.get(id);
        if (schedule == null) {
            throw YyghException.notFound("排班", id);
        }
        return schedule;
    }

    Schedule publish(Schedule schedule) {
        String prefix = prefix(schedule.hoscode(), schedule.depcode(), schedule.workDate(), schedule.slot());
        String id = prefix + "-" + schedule.doctor();
        Schedule published = new Schedule(
                id,
                schedule.hoscode(),
                schedule.depcode(),
                schedule.doctor(),
                schedule.title(),
                schedule.skill(),
                schedule.workDate(),
                schedule.slot(),
                schedule.reserved(),
                schedule.reserved(),
                schedule.fee());
        schedules.put(id, published);
        return published;
    }

    Schedule take(String id) {
        return change(id, Schedule::take);
    }

    Schedule giveBack(String id) {
        return change(id, Schedule::giveBack);
    }

    private Schedule change(String id, UnaryOperator<Schedule> change) {
        get(id);
        return schedules.computeIfPresent(id, (same, schedule) -> change.apply(schedule));
    }

    private void fill(Department department) {
        LocalDate today = LocalDate.now(clock);
        for (int ahead = 1; ahead <= DAYS; ahead++) {
            LocalDate day = today.plusDays(ahead);
            if (day.getDayOfWeek() != DayOfWeek.SUNDAY) {
                for (Slot slot : Slot.values()) {
                    String id = prefix(department.hoscode(), department.depcode(), day, slot);
                    schedules.computeIfAbsent(id, missing -> invent(missing, department, day, slot));
                }
            }
        }
    }

    private static Schedule invent(String id, Department department, LocalDate day, Slot slot) {
        Random random = new Random(id.hashCode());
        int rank = random.nextInt(TITLES.length);
        int reserved = 20 + random.nextInt(3) * 10;
        return new Schedule(
                id,
                department.hoscode(),
                department.depcode(),
                DOCTORS[random.nextInt(DOCTORS.length)],
                TITLES[rank],
                department.intro(),
                day,
                slot,
                reserved,
                random.nextInt(reserved + 1),
                BigDecimal.valueOf(FEES[rank]));
    }

    private static String prefix(String hoscode, String depcode, LocalDate day, Slot slot) {
        return String.join("-", hoscode, depcode, COMPACT.format(day), slot == Slot.MORNING ? "AM" : "PM");
    }
}
