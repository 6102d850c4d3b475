package com.atguigu.yygh.statistics;

import static org.assertj.core.api.Assertions.assertThat;
import static org.mockito.BDDMockito.given;
import static org.mockito.Mockito.mock;

import com.atguigu.yygh.hosp.client.HospApi;
import com.atguigu.yygh.model.hosp.Hospital;
import com.atguigu.yygh.model.order.HospitalCount;
import com.atguigu.yygh.order.client.OrderApi;
import java.math.BigDecimal;
import java.util.List;
import org.junit.jupiter.api.Test;

class StatisticsControllerTest {

    private final OrderApi orders = mock(OrderApi.class);
    private final HospApi hospitals = mock(HospApi.class);
    private final StatisticsController statistics = new StatisticsController(orders, hospitals);

    @Test
    void theBusiestHospitalComesFirstWithItsShare() {
        given(hospitals.hospitals(null)).willReturn(List.of(hospital("1", "甲"), hospital("2", "乙")));
        given(orders.countByHospital()).willReturn(List.of(
                new HospitalCount("1", 1, 0, BigDecimal.TEN), new HospitalCount("2", 3, 1, BigDecimal.ONE)));
        assertThat(statistics.hospitals()).containsExactly(
                new StatisticsController.HospitalShare("2", "乙", 3, 1, BigDecimal.ONE, 75.0),
                new StatisticsController.HospitalShare("1", "甲", 1, 0, BigDecimal.TEN, 25.0));
    }

    private static Hospital hospital(String hoscode, String name) {
        return new Hospital(hoscode, name, "1", "三级甲等", "海棠市", "", "", 7, "08:00");
    }
}
