package com.atguigu.yygh.manage;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.mockito.ArgumentMatchers.any;
import static org.mockito.Mockito.mock;
import static org.mockito.Mockito.never;
import static org.mockito.Mockito.verify;

import com.atguigu.yygh.hosp.client.HospApi;
import com.atguigu.yygh.model.hosp.Schedule;
import java.math.BigDecimal;
import java.time.LocalDate;
import org.junit.jupiter.api.Test;

class ManageControllerTest {

    private final HospApi hospitals = mock(HospApi.class);
    private final ManageController manage = new ManageController(new HospitalSets(), hospitals);

    @Test
    void anOpenHospitalPublishes() {
        manage.publish(schedule("1001"));
        verify(hospitals).publish(schedule("1001"));
    }

    @Test
    void aLockedHospitalDoesNot() {
        assertThatThrownBy(() -> manage.publish(schedule("1006"))).hasMessageContaining("已锁定");
        verify(hospitals, never()).publish(any());
    }

    @Test
    void aLockedHospitalCanBeOpened() {
        assertThat(manage.access("1006", new ManageController.Access(true)).open()).isTrue();
        manage.publish(schedule("1006"));
        verify(hospitals).publish(schedule("1006"));
    }

    private static Schedule schedule(String hoscode) {
        return new Schedule(null, hoscode, "nk01", "林知远", "主任医师", "", LocalDate.of(2030, 1, 7),
                Schedule.Slot.MORNING, 20, 20, BigDecimal.TEN);
    }
}
