package com.atguigu.yygh.hosp;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.atguigu.yygh.common.YyghException;
import com.atguigu.yygh.model.hosp.Department;
import com.atguigu.yygh.model.hosp.Schedule;
import java.time.Clock;
import java.time.DayOfWeek;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.List;
import org.junit.jupiter.api.Test;

class SchedulesTest {

    private static final Clock A_MONDAY = Clock.fixed(Instant.parse("2030-01-07T09:00:00Z"), ZoneOffset.UTC);

    private final Hospitals hospitals = new Hospitals();
    private final Schedules schedules = new Schedules(hospitals, A_MONDAY);
    private final Department heart = hospitals.department("1001", "nk01");

    @Test
    void aWeekHasSixWorkingDaysOfTwoHalves() {
        List<Schedule> week = schedules.of(heart);
        assertThat(week).hasSize(12);
        assertThat(week).noneMatch(schedule -> schedule.workDate().getDayOfWeek() == DayOfWeek.SUNDAY);
    }

    @Test
    void twoPodsInventTheSameWeek() {
        assertThat(new Schedules(hospitals, A_MONDAY).of(heart)).isEqualTo(schedules.of(heart));
    }

    @Test
    void takingANumberLeavesOneLess() {
        Schedule open = schedules.of(heart).stream().filter(s -> s.available() > 0).findFirst().orElseThrow();
        assertThat(schedules.take(open.id()).available()).isEqualTo(open.available() - 1);
        assertThat(schedules.giveBack(open.id())).isEqualTo(open);
    }

    @Test
    void anUnknownScheduleIsNotFound() {
        assertThatThrownBy(() -> schedules.get("1001-nk01-19990101-AM")).isInstanceOf(YyghException.class);
        assertThatThrownBy(() -> schedules.get("nonsense")).isInstanceOf(YyghException.class);
    }
}
